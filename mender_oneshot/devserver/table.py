"""Print the answer of a command: a table or lines for a person, or JSON."""

import json
from typing import Any

import click

SCHEMA = 1
Row = dict[str, Any]


def show(answer: Row, lines: list[str], as_json: bool) -> None:
    """Print an answer as JSON or as lines, in which only printable characters of the device remain."""
    if as_json:
        click.echo(json.dumps({"schema": SCHEMA} | answer))
    else:
        for line in lines:
            click.echo("".join(c if c.isprintable() else "?" for c in line))


def lines(rows: list[Row]) -> list[str]:
    """Return a heading and one line for each row, in columns."""
    if not rows:
        return ["None yet."]
    cells = [[name.replace("_", " ").upper() for name in rows[0]]]
    cells += [[words(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def words(value: Any) -> str:
    """Return a value of a row as text."""
    if value is None:
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{name}={item}" for name, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
