"""The documents: links, the sentences that they quote, and the examples of the configuration reference."""

import ast
import json
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers.device import REPO
from helpers.documents import broken_links, headings

from mender_oneshot import config_file, paths, settings
from mender_oneshot.config_file import Keys
from mender_oneshot.terminal import settings as terminal

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


REFERENCE = REPO / "docs" / "configuration.md"
KINDS = {
    "string": "a string",
    "boolean": "true or false",
    "list of strings": "a list of strings",
    "list": "a list of",
    "number": "a whole number",
    "octal": "an octal number in quotes",
    "choice": '" or "',
    "any": "",
}
"""The types of the reference, and what the reader calls them."""


class Key(NamedTuple):
    """A row of the reference."""

    file: str
    name: str
    kind: str
    default: str
    example: str


def keys() -> list[Key]:
    """Return the rows of the configuration reference."""
    found = []
    for section in re.split("^## ", REFERENCE.read_text(), flags=re.MULTILINE):
        rows = re.findall(r"^\| `([\w.]+)` \| (.+?) \| (.*?) ?\| `(.+?)` \| .+ \|$", section, re.MULTILINE)
        found += [Key(section.partition(":")[0], *row) for row in rows]
    return found


def known(file: str) -> Keys:
    return settings.KEYS if file == "mender.conf" else terminal.KEYS


def test_the_reference_has_every_key_once() -> None:
    for file in ("mender.conf", "mender-connect.conf"):
        names = [key.name for key in keys() if key.file == file]
        assert sorted(names) == sorted(known(file))


@pytest.mark.parametrize("key", keys(), ids=lambda key: key.name)
def test_the_example_of_a_key_is_read_without_a_warning(key: Key, tmp_path: Path) -> None:
    places = paths.find_places(datastore=str(tmp_path))._replace(
        conf_dir=str(tmp_path), config=f"{tmp_path}/mender.conf"
    )
    more = '"User": "operator", ' if key.file != "mender.conf" and key.name != "User" else ""
    (tmp_path / key.file).write_text(f"{{{more}{key.example}}}")
    loaded = settings.load(places) if key.file == "mender.conf" else terminal.load(places)
    assert loaded.warnings == ()
    values = config_file.parse(key.file, f"{{{key.example}}}".encode(), known(key.file), {}, [])
    assert key.name in values


@pytest.mark.parametrize("key", keys(), ids=lambda key: key.name)
def test_the_type_and_the_default_of_a_key_are_those_of_the_reader(key: Key) -> None:
    kind, field = known(key.file)[key.name]
    assert KINDS[key.kind] in kind.expected
    defaults = settings.Settings._field_defaults | terminal.TerminalSettings._field_defaults
    limits = {f"limits.{name}": value for name, value in terminal.FileLimits._field_defaults.items()}
    default = (defaults | limits).get(field, "")
    shown = default if isinstance(default, str) else json.dumps(default)
    assert key.default == ("" if shown == "[]" else shown)


def test_the_whole_example_is_read(tmp_path: Path) -> None:
    (example,) = re.findall(r"^```json\n(.*?)^```", REFERENCE.read_text(), re.MULTILINE | re.DOTALL)
    assert settings.parse("mender.conf", example.encode(), [])


def test_the_reference_lists_the_keys_of_other_clients() -> None:
    section = REFERENCE.read_text().partition("keys of other clients")[2].partition("## ")[0]
    assert tuple(re.findall(r"`(\w+)`", section)) == settings.OF_OTHER_CLIENTS
