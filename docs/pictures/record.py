"""Record a run of the demo as an animated SVG: record.py > demo.svg, in the environment of `make demo`.

Each line appears when it was printed, in proportion; the gutter has the seconds since the start.
"""

import os
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

REPO = Path(__file__).parents[2]
COLUMNS, ROWS = 100, 22
WIDTH, LINE, TOP = 900, 18, 44
SHORTEST = {"command": 0.5, "note": 0.3, "output": 0.12}
LONGEST = 1.6
"""Seconds before a line is shown, at least and at most."""
END = 6.0
"""Seconds for which the last lines stay."""


class Line(NamedTuple):
    """A line of the screen, its class, and the second in which it was printed."""

    at: float
    kind: str
    text: str


def record() -> list[Line]:
    """Run the demo, and return what it printed."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, REPO / "tests" / "demo.py"],
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: list[Line] = []
    for text in process.stdout or ():
        at = time.monotonic() - began
        plain = re.sub(r"/tmp/mender-oneshot-demo-\w+", "/tmp/demo", text.rstrip())  # noqa: S108
        pieces = textwrap.wrap(plain, COLUMNS, subsequent_indent="    ", drop_whitespace=False) or [""]
        lines += [Line(at, kind_of(plain), piece) for piece in pieces]
    if process.wait():
        sys.exit("The demo failed; nothing was recorded.")
    return lines


def kind_of(text: str) -> str:
    """Return the class of a line: a command, a note of the demo, or the output of a program."""
    if text.startswith("$ "):
        return "command"
    if text.startswith("  ("):
        return "note"
    return "output"


def drawing(lines: list[Line]) -> str:
    """Return the SVG; it loops."""
    moments = []
    now = 0.5
    for index, line in enumerate(lines):
        gap = line.at - lines[index - 1].at if index else 0
        now += min(max(gap, SHORTEST[line.kind]), LONGEST)
        moments.append(now)
    total = now + END
    rules, rows, steps = [], [], ["0% { transform: translateY(0) }"]
    for index, (line, moment) in enumerate(zip(lines, moments, strict=True)):
        percent = 100 * moment / total
        rules.append(
            f"@keyframes l{index} {{ 0%, {percent:.2f}% {{ opacity: 0 }} "
            f"{percent + 0.01:.2f}%, 100% {{ opacity: 1 }} }} #l{index} {{ animation-name: l{index} }}"
        )
        y = TOP + LINE * index
        clock = f'<tspan class="time">{line.at:5.1f} s</tspan>' if line.text.startswith("$ ") else ""
        rows.append(
            f'<g id="l{index}" class="line"><text x="14" y="{y}">{clock}</text>'
            f'<text x="82" y="{y}" class="{line.kind}">{escape(line.text)}</text></g>'
        )
        if index >= ROWS:
            steps.append(f"{percent:.2f}% {{ transform: translateY({-LINE * (index - ROWS + 1)}px) }}")
    last = -LINE * max(len(lines) - ROWS, 0)
    steps.append(f"100% {{ transform: translateY({last}px) }}")
    newline = "\n"
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {TOP + LINE * ROWS}" role="img"
  aria-label="A recording of make demo: a device is accepted, resumes a killed download, installs a release
  and rolls back a broken one">
<style>
text {{ font: 13px ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; white-space: pre;
  fill: #d0d7de }}
.command {{ fill: #7ee787 }}
.note {{ fill: #79c0ff }}
.time {{ fill: #8b949e }}
.title {{ fill: #8b949e }}
.line, #screen {{ animation-duration: {total:.1f}s; animation-iteration-count: infinite;
  animation-timing-function: step-end }}
#screen {{ animation-name: scroll }}
@keyframes scroll {{ {" ".join(steps)} }}
{newline.join(rules)}
@media (prefers-reduced-motion: reduce) {{
  .line, #screen {{ animation: none }}
  #screen {{ transform: translateY({last}px) }}
}}
</style>
<clipPath id="window"><rect x="0" y="30" width="{WIDTH}" height="{TOP + LINE * ROWS - 34}"/></clipPath>
<rect width="{WIDTH}" height="{TOP + LINE * ROWS}" rx="8" fill="#0d1117" stroke="#444c56"/>
<circle cx="18" cy="15" r="5" fill="#ff5f56"/><circle cx="36" cy="15" r="5" fill="#ffbd2e"/>
<circle cx="54" cy="15" r="5" fill="#27c93f"/>
<text x="{WIDTH // 2}" y="19" text-anchor="middle" class="title">make demo</text>
<g clip-path="url(#window)"><g id="screen">
{newline.join(rows)}
</g></g>
</svg>
"""


if __name__ == "__main__":
    sys.stdout.write(drawing(record()))
