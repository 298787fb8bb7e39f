"""A plot of request rates over time as SVG, readable on a light and on a dark page."""

import math
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 760, 300, 60, 56, 16, 48
COLORS = ("#d1495b", "#2a6fbb", "#3b8f4a")


def drawing(title: str, lines: dict[str, list[float]], begin: float) -> str:
    """Return the SVG; a value a minute, in multiples of the quiet week's mean, from `begin` in hours."""
    minutes = max(len(values) for values in lines.values())
    top = max(3, math.ceil(max(max(values) for values in lines.values())))
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(minute: float) -> float:
        return round(LEFT + wide * minute / minutes, 1)

    def y(value: float) -> float:
        return round(TOP + high * (1 - value / top), 1)

    parts = []
    for value in range(0, top + 1, max(1, top // 5)):
        parts.append(f'<path d="M{LEFT} {y(value)}H{WIDTH - RIGHT}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(value) + 4}" text-anchor="end">{value}</text>')
    for hour in range(minutes // 60 + 1):
        label = f"{begin + hour:+.0f} h" if begin + hour else "0"
        parts.append(f'<text x="{x(hour * 60)}" y="{HEIGHT - 28}" text-anchor="middle">{label}</text>')
    parts.append(f'<path d="M{LEFT} {y(2)}H{WIDTH - RIGHT}" stroke="#57606a" stroke-dasharray="5 4"/>')
    for number, (label, values) in enumerate(lines.items()):
        color = COLORS[number]
        points = " ".join(f"{x(minute)},{y(value)}" for minute, value in enumerate(values))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        parts.append(f'<text x="{LEFT + 200 * number}" y="44" fill="{color}">&#9632; {escape(label)}</text>')
    newline = "\n"
    legend = ", ".join(f"{label}: at most {max(values):.1f}" for label, values in lines.items())
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"
  aria-label="{escape(title)}: requests per minute as a multiple of the mean. {escape(legend)}.">
<style>text {{ font: 12px system-ui, sans-serif }}</style>
<rect width="{WIDTH}" height="{HEIGHT}" rx="6" fill="#ffffff" stroke="#d0d7de"/>
<text x="{LEFT}" y="22" font-weight="bold">{escape(title)}</text>
{newline.join(parts)}
<text x="{WIDTH - RIGHT}" y="{y(2) - 5}" text-anchor="end">goal: 2</text>
<text x="{LEFT + wide / 2}" y="{HEIGHT - 8}" text-anchor="middle">time since the end of the fault</text>
<text x="16" y="{TOP + high / 2}" text-anchor="middle" transform="rotate(-90 16 {TOP + high / 2})"
>requests / mean</text>
</svg>
"""
