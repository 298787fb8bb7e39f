"""A shell gets the locale of the system, and its terminal erases whole UTF-8 characters."""

from pathlib import Path

import pytest
from helpers.device import patch_python
from helpers.terminal_peer import Conversation, Served

from mender_oneshot.terminal.language import is_utf8, parse


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("LANG=de_DE.UTF-8\n", {"LANG": "de_DE.UTF-8"}),
        ("LANG=\"de_DE.UTF-8\"\nLC_TIME='C'\n", {"LANG": "de_DE.UTF-8", "LC_TIME": "C"}),
        ("export LANG=en_GB.UTF-8", {"LANG": "en_GB.UTF-8"}),
        ("# LANG=C\n  LANG = C\n", {}),
        ("LANGUAGE=en_GB:en\nLC_CTYPE=de_DE@euro\n", {"LANGUAGE": "en_GB:en", "LC_CTYPE": "de_DE@euro"}),
        ("PATH=/tmp\nLD_PRELOAD=x\nLANG=C\n", {"LANG": "C"}),
        ("LANG=\n", {}),
        ("LANG=$(reboot)\nLC_ALL=../../etc\nLC_TIME=a b\n", {}),
        ("LANG", {}),
        ("LANG=\ufffd\n", {}),
    ],
)
def test_only_locale_names_are_read_from_a_locale_file(text: str, found: dict[str, str]) -> None:
    assert parse(text) == found


@pytest.mark.parametrize(
    ("chosen", "utf8"),
    [
        ({"LANG": "C.UTF-8"}, True),
        ({"LANG": "en_US.utf8"}, True),
        ({"LANG": "C"}, False),
        ({"LANG": "C.UTF-8", "LC_ALL": "C"}, False),
        ({"LANG": "C.UTF-8", "LC_CTYPE": "de_DE.ISO-8859-1"}, False),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, True),
        ({}, False),
    ],
)
def test_whether_a_locale_uses_utf8(chosen: dict[str, str], utf8: bool) -> None:
    assert is_utf8(chosen) == utf8


REDIRECT_LOCALE_FILES = """
import builtins
before = builtins.open
def redirected(path, *arguments, **options):
    if path in ("/etc/locale.conf", "/etc/default/locale"):
        path = {directory!r} + path.replace("/", "_")
    return before(path, *arguments, **options)
builtins.open = redirected
"""


def shown(line: Conversation) -> tuple[set[str], bool]:
    """Return the locale variables of a shell, and whether its terminal has IUTF8."""
    line.shell()
    line.type("env | grep -E '^(LANG|LC_)'; stty -a | grep -oE '.iutf8'; echo en''d\n")
    words = line.see(b"end\r\n").decode().split("en''d")[-1].split()
    return {word for word in words if "=" in word}, "iutf8" in words


CASES: dict[str, tuple[dict[str, str], dict[str, str], set[str], bool]] = {
    # name: environment of the terminal, files of the system, environment of the shell, IUTF8
    "neither environment nor files": ({}, {}, {"LANG=C.UTF-8"}, True),
    "locale.conf": ({}, {"_etc_locale.conf": "LANG=C\n"}, {"LANG=C"}, False),
    "default/locale": ({}, {"_etc_default_locale": "LC_CTYPE=C.UTF-8\n"}, {"LC_CTYPE=C.UTF-8"}, True),
    "both files": (
        {},
        {"_etc_locale.conf": "LANG=C\n", "_etc_default_locale": "LANG=C.UTF-8\n"},
        {"LANG=C"},
        False,
    ),
    "a file without a locale": ({}, {"_etc_locale.conf": "KEYMAP=de\n"}, {"LANG=C.UTF-8"}, True),
    "the environment": (
        {"LANG": "C.UTF-8", "LC_TIME": "C"},
        {"_etc_locale.conf": "LANG=C\n"},
        {"LANG=C.UTF-8", "LC_TIME=C"},
        True,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_shell_gets_the_locale_of_the_environment_or_of_the_system(
    terminal: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    environment, files, expected, utf8 = CASES[name]
    for inherited in ("LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "LC_TIME"):
        monkeypatch.delenv(inherited, raising=False)
    for file, content in files.items():
        Path(f"{tmp_path}/{file}").write_text(content)
    terminal.device.environment |= environment
    patch_python(terminal.device, REDIRECT_LOCALE_FILES.format(directory=f"{tmp_path}/"))
    with terminal.connect() as line:
        assert shown(line) == (expected, utf8)
