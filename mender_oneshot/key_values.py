"""Parse `key=value` lines, which the scripts print and the files of the device contain."""

Values = dict[str, list[str]]
"""The values of each key, in the order of the lines."""


def parse(text: str, *, strip: bool) -> Values:
    """Collect the `key=value` lines of a text, and skip all other lines.

    With `strip`, blanks around a line are removed, as in mender-python-client; without it, only the line end.
    """
    values: Values = {}
    for line in text.split("\n"):
        if pair := parse_line(line, strip=strip):
            values.setdefault(pair[0], []).append(pair[1])
    return values


def parse_line(line: str, *, strip: bool) -> tuple[str, str] | None:
    """Return key and value of a `key=value` line, None for any other line."""
    line = line.strip() if strip else line.removesuffix("\r")
    key, separator, value = line.partition("=")
    return (key, value) if separator and key else None


def single(values: list[str]) -> str | list[str]:
    """Return a single value as itself, and several as a list."""
    return values[0] if len(values) == 1 else values
