"""The documents: links, the sentences that they quote, and the examples of the configuration reference."""

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest
from helpers.device import REPO

SHORTEST_QUOTE = 10
"""Letters that a heading must have in a row, so that it does not match any message."""


def documents() -> list[Path]:
    """Return the Markdown files of the repository."""
    listed = subprocess.run(
        ["git", "-C", REPO, "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return sorted(REPO / name for name in listed.stdout.split())


def prose(page: Path) -> str:
    """Return a page without its code blocks."""
    return re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def headings(page: Path, level: str = "#+") -> list[str]:
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


@pytest.mark.parametrize("page", documents(), ids=lambda page: str(page.relative_to(REPO)))
def test_each_relative_link_leads_somewhere(page: Path) -> None:
    assert broken_links(page) == []


@cache
def messages() -> list[str]:
    """Return the strings of the package; a NUL stands for each value that is filled in."""
    found = []
    for path in (REPO / "mender_oneshot").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def quotes_a_message(heading: str) -> bool:
    """Return whether a heading is a message, with `...` for what is different each time."""
    fixed = [part.strip() for part in heading.replace("\\", "").split("...") if part.strip()]
    pattern = re.compile(".*".join(map(re.escape, fixed)), re.DOTALL)
    return max(map(len, fixed)) >= SHORTEST_QUOTE and any(map(pattern.search, messages()))


TROUBLE = REPO / "docs" / "troubleshooting.md"


@pytest.mark.parametrize("heading", headings(TROUBLE, "###"))
def test_each_symptom_is_a_sentence_of_the_program(heading: str) -> None:
    assert quotes_a_message(heading)


def test_a_sentence_that_the_program_does_not_print_is_found() -> None:
    assert headings(TROUBLE, "###")
    assert not quotes_a_message("The device ... cannot be found in the garden; look for it.")
