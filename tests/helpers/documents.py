"""Read the man pages, the README and the other documents."""

import re
from pathlib import Path
from typing import NamedTuple

from helpers.device import REPO

README = REPO / "README.md"
PROGRAM, CONFIGURATION, CONTRACT = (
    REPO / "docs" / "man" / name
    for name in ("mender-oneshot.1", "mender-oneshot.conf.5", "mender-oneshot-sub-updater.7")
)


def plain(line: str) -> str:
    """Return the words of a line of roff, without its fonts."""
    line = re.sub(r"\\f.", "", line).replace(r"\-", "-").replace(r"\(dq", '"').replace("\\ ", " ")
    assert "\\" not in line, f"an escape that this helper does not translate: {line}"
    return line


def example(page: Path) -> str:
    """Return the first example of a man page, as roff."""
    source = page.read_text()
    return source[source.index(".EX\n") + 4 : source.index(".EE\n")]


def small_sub_updaters() -> dict[str, str]:
    """Return the sub-updater of the man page and the one of the README."""
    (of_the_readme,) = re.findall(
        r"^```sh\n(#!/bin/sh\n.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL
    )
    return {"man page": plain(example(CONTRACT)), "README": of_the_readme}


class Typed(NamedTuple):
    """A command of a page, the prompt before it, and the lines that the page shows after it."""

    prompt: str
    command: str
    output: tuple[str, ...]


def typed(page: Path, *prompts: str) -> list[Typed]:
    """Return the commands of the `console` blocks of a page that follow one of these prompts."""
    found: list[Typed] = []
    for block in re.findall(r"^```console\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            prompt, blank, command = line.partition(" ")
            if prompt in prompts:
                found.append(Typed(prompt, command, ()))
            else:
                last = found.pop()
                found.append(last._replace(output=(*last.output, line)))
    return found


def shows(output: tuple[str, ...], text: str) -> bool:
    """Return whether the lines that a page shows are what was printed.

    `...` stands for any text in a line, and alone for any number of lines.
    """
    parts = (
        "(?:.*\n)*" if line == "..." else re.escape(line).replace(re.escape("..."), ".*") + "\n"
        for line in output
    )
    return re.fullmatch("".join(parts), f"{text.strip()}\n" if text.strip() else "") is not None


def prose(page: Path) -> str:
    """Return a page without its code blocks."""
    return re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def headings(page: Path, level: str = "#+") -> list[str]:
    """Return the headings of a page, of one level or of all."""
    return re.findall(rf"^{level} (.+)$", prose(page), re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    return {re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings(page)}


def broken_links(page: Path) -> list[str]:
    """Return the relative links of a page that lead nowhere."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        path, _, anchor = target.partition("#")
        if re.match("[a-z]+:", path):
            continue
        found = page if not path else (page.parent / path)
        if not found.exists() or (anchor and anchor not in anchors(found)):
            broken.append(target)
    return broken
