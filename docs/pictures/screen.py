"""Draw the output of a command on a terminal: mender-oneshot doctor | screen.py "mender-oneshot doctor"."""

import sys
import textwrap
from xml.sax.saxutils import escape

COLUMNS = 110
WIDTH, LINE, TOP = 960, 18, 48
CLASSES = ("ok", "warning", "FAILED", "skipped")
"""The first words of lines that have a color."""


def main() -> None:
    """Read the output from stdin and print the picture."""
    title = sys.argv[1]
    rows = [f'<text x="14" y="{TOP}" class="command">$ {escape(title)}</text>']
    for line in sys.stdin.read().splitlines():
        level = line.partition(" ")[0]
        for index, piece in enumerate(_wrapped(line)):
            y = TOP + LINE * len(rows)
            kind = level if level in CLASSES and not index else "plain"
            size = len(level) if kind == level else 0
            rows.append(
                f'<text x="14" y="{y}"><tspan class="{kind}">{escape(piece[:size])}</tspan>'
                f"{escape(piece[size:])}</text>"
            )
    sys.stdout.write(drawing(title, rows))


def _wrapped(line: str) -> list[str]:
    """Return a line in pieces that fit; what follows a check's name is indented below it."""
    indent = " " * (24 if line.partition(" ")[0] in CLASSES else 0)
    return textwrap.wrap(line, COLUMNS, subsequent_indent=indent, drop_whitespace=False) or [""]


def drawing(title: str, rows: list[str]) -> str:
    """Return the SVG."""
    height = TOP + LINE * len(rows)
    newline = "\n"
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"
  aria-label="The output of {escape(title)}">
<style>
text {{ font: 13px ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; white-space: pre;
  fill: #d0d7de }}
.command, .ok {{ fill: #7ee787 }}
.warning {{ fill: #e3b341 }}
.FAILED {{ fill: #ff7b72 }}
.skipped {{ fill: #8b949e }}
</style>
<rect width="{WIDTH}" height="{height}" rx="8" fill="#0d1117" stroke="#444c56"/>
<circle cx="18" cy="15" r="5" fill="#ff5f56"/><circle cx="36" cy="15" r="5" fill="#ffbd2e"/>
<circle cx="54" cy="15" r="5" fill="#27c93f"/>
{newline.join(rows)}
</svg>
"""


if __name__ == "__main__":
    main()
