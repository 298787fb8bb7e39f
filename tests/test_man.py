"""The man pages say what the program does: the words of `--help`, the keys, their defaults, and no others."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from helpers.device import REPO, Device
from helpers.documents import CONFIGURATION, CONTRACT, PROGRAM, example, plain, small_sub_updaters
from helpers.real_daemon import need
from helpers.seen import final_status
from helpers.waiting import until

from mender_oneshot import cli, paths, settings
from mender_oneshot.devserver import DevServer
from mender_oneshot.terminal import settings as terminal

FILES = sorted((REPO / "docs" / "man").glob("*.[157]"))
ALIASES = [path for path in FILES if path.read_text().startswith(".so ")]
"""Other names of a page, as `man` finds them: those of the files that it describes."""
PAGES = [path for path in FILES if path not in ALIASES]


def read(page: Path) -> Iterator[tuple[str, str]]:
    """Yield (macro, words) for each piece of a page; "" for running text, its font macros taken off."""
    for line in page.read_text().splitlines():
        macro, _, rest = line.partition(" ")
        if not line.startswith("."):
            yield "", plain(line)
        elif macro in (".B", ".I"):
            yield "", plain(rest)
        elif macro in (".BR", ".RB", ".IR", ".RI"):
            parts = re.findall(r'"([^"]*)"|((?:\\ |\S)+)', rest)
            yield "", plain("".join(quoted or bare for quoted, bare in parts))
        else:
            yield macro, plain(rest.strip('"'))


def entries(page: Path) -> dict[tuple[str, str], str]:
    """What a page says below each tag, and below each heading itself: (heading, tag or "") -> text."""
    found: dict[tuple[str, str], str] = {}
    heading, tag, awaits_tag = "", "", False
    for macro, text in read(page):
        if macro in (".SH", ".SS"):
            heading, tag = text, ""
        elif macro == ".TP":
            awaits_tag = True
        elif macro == "" and awaits_tag:
            tag, awaits_tag = text, False
            assert (heading, tag) not in found, f"{tag} stands twice under {heading}"
            found[heading, tag] = ""
        elif macro == "":
            found[heading, tag] = f"{found.get((heading, tag), '')} {text}".strip()
    return found


def tags(page: Path, heading: str) -> dict[str, str]:
    return {tag: text for (under, tag), text in entries(page).items() if under == heading and tag}


def options(command: click.Command) -> dict[str, str]:
    """The options of a command as `--help` shows them, and their words."""
    program = click.Context(cli.cli, **cli.cli.context_settings)
    context = program if command is cli.cli else click.Context(command, parent=program)
    found = {}
    for option in command.get_params(context):
        if isinstance(option, click.Argument):
            continue
        assert isinstance(option, click.Option)
        record = option.get_help_record(context)
        if record:
            found[record[0]] = option.help or ""
    return found


COMMANDS = {name: command for name, command in cli.cli.commands.items() if not command.hidden}
OF_EVERY_COMMAND = set.intersection(*(set(options(command)) for command in COMMANDS.values()))


def test_the_options_before_the_command() -> None:
    written = tags(PROGRAM, "OPTIONS")
    known = options(cli.cli)
    assert list(written) == list(known)
    assert [tag for tag, text in written.items() if not text.startswith(known[tag])] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_and_its_options_are_in_the_man_page(name: str) -> None:
    page = entries(PROGRAM)
    assert page[name, ""].startswith(COMMANDS[name].help or "?")
    written = tags(PROGRAM, name) | tags(PROGRAM, "OPTIONS OF THE COMMANDS")
    for tag, help in options(COMMANDS[name]).items():
        if tag != "-h, --help":
            assert written[tag].startswith(help), tag


def test_no_command_and_no_option_that_is_not_there() -> None:
    lines = PROGRAM.read_text().splitlines()
    assert {plain(line[4:]) for line in lines if line.startswith(".SS ")} == set(COMMANDS)
    for name in COMMANDS:
        assert set(tags(PROGRAM, name)) <= set(options(COMMANDS[name])), name
    some_have = set.union(*(set(options(command)) for command in COMMANDS.values()))
    assert OF_EVERY_COMMAND - {"-h, --help"} <= set(tags(PROGRAM, "OPTIONS OF THE COMMANDS")) <= some_have


def test_the_man_page_has_the_exit_codes_of_the_help() -> None:
    said = dict(re.findall(r"^ +(\d+) +(.+)$", cli.EXIT_CODES, re.MULTILINE))
    assert len(said) > 10
    assert tags(PROGRAM, "EXIT STATUS") == said


HEADINGS = ["The server", "The device", "Intervals", "The update", "The log"]
KEYS = {tag: text for heading in HEADINGS for tag, text in tags(CONFIGURATION, heading).items()}
TERMINAL_KEYS = tags(CONFIGURATION, "The remote terminal")


def test_the_keys_of_the_configuration() -> None:
    assert set(KEYS) == set(settings.KEYS)
    assert set(TERMINAL_KEYS) == set(terminal.KEYS)
    of_others = entries(CONFIGURATION)["Keys of other clients", ""].partition(":")[2]
    assert [name.strip(" .") for name in of_others.split(",")] == sorted(settings.OF_OTHER_CLIENTS)


def test_the_defaults_of_the_configuration() -> None:
    defaults = settings.Settings._field_defaults
    for key, (_, field) in settings.KEYS.items():
        says_the_default(key, KEYS[key], defaults.get(field, ""))


def test_the_defaults_of_the_remote_terminal() -> None:
    limits = {f"limits.{name}": value for name, value in terminal.FileLimits._field_defaults.items()}
    defaults = terminal.TerminalSettings._field_defaults | limits
    for key, (_, field) in terminal.KEYS.items():
        says_the_default(key, TERMINAL_KEYS[key], defaults.get(field, ""))


def says_the_default(key: str, text: str, default: object) -> None:
    if default in ((), ""):
        assert "Default:" not in text, key
    else:
        says = default if isinstance(default, str) else json.dumps(default)
        assert text.startswith(f"Default: {says}."), f"{key}: {says}"


def test_the_choices_of_the_configuration() -> None:
    choices = {key: kind.expected for key, (kind, _) in settings.KEYS.items() if kind.expected[0] == '"'}
    assert set(choices) == {"DeviceTier", "KeyType", "IdentityFormat"}
    for key, expected in choices.items():
        words = re.findall(r'"(.*?)"', expected)
        assert [word for word in words if word not in KEYS[key]] == [], key


def test_the_example_of_a_configuration_is_one(tmp_path: Path) -> None:
    warnings: list[str] = []
    assert len(settings.parse("mender.conf", plain(example(CONFIGURATION)).encode(), warnings)) == 4
    assert not warnings


def test_the_environment_of_the_sub_updater(
    accepted: Device, release: Callable[..., str], server: DevServer
) -> None:
    seen = accepted.root / "seen"
    accepted.sub_updater(f"env > {seen}; $ONESHOT report --success\n")
    release()
    accepted.ok("run", "--all")
    server.wait_for(final_status)
    names = {line.partition("=")[0] for line in seen.read_text().splitlines() if line.startswith("MENDER_")}
    of_the_invocation = {"MENDER_CONF_DIR", "MENDER_DATA_DIR"}
    assert names - of_the_invocation == set(tags(CONTRACT, "ENVIRONMENT"))


@pytest.mark.real
@pytest.mark.parametrize("text", small_sub_updaters().values(), ids=small_sub_updaters())
def test_the_examples_of_a_sub_updater_are_plain_shell(text: str) -> None:
    need("shellcheck", "busybox")
    for checker in (["shellcheck", "-"], ["busybox", "sh", "-n"]):
        subprocess.run(checker, input=text, text=True, check=True)


@pytest.mark.parametrize("text", small_sub_updaters().values(), ids=small_sub_updaters())
@pytest.mark.parametrize(
    ("mender", "release_then"),
    [
        ("exit 0", "release-2"),
        ("[ $1 = install ] || exit 2", "release-2"),
        ("[ $1 = install ]", "release-1"),
        ("exit 1", "release-1"),
        ("exit 2", "release-1"),
    ],
    ids=["installs", "commits by itself", "cannot commit", "cannot install", "is called wrongly"],
)
def test_the_examples_of_a_sub_updater_are_ones(
    accepted: Device,
    release: Callable[..., str],
    server: DevServer,
    text: str,
    mender: str,
    release_then: str,
) -> None:
    programs = accepted.root / "bin"
    programs.mkdir()
    for name, command in {
        "mender": mender,
        "mender-oneshot": f'{accepted.command()} "$@"',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{command}\n")
        (programs / name).chmod(0o755)
    accepted.environment["PATH"] = f"{programs}:/usr/bin:/bin"
    accepted.script("install", text.replace("/etc/mender", str(accepted.conf)))
    deployment = release()
    accepted.ok("run", "--all")
    server.wait_for(final_status)
    until(lambda: not (accepted.data / "update.lock").exists(), "the example takes the lock away")
    assert server.status(deployment) == ("success" if release_then == "release-2" else "failure")
    assert accepted.ok("show-artifact").out == f"{release_then}\n"


def test_the_directories_of_the_environment() -> None:
    places = paths.find_places()
    defaults = (places.conf_dir, places.scripts_dir, places.datastore)
    written = tags(PROGRAM, "ENVIRONMENT")
    names = ("MENDER_CONF_DIR", "MENDER_DATA_DIR", "MENDER_DATASTORE_DIR")
    assert [name for name, path in zip(names, defaults, strict=True) if path not in written[name]] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_itself_and_the_others(page: Path) -> None:
    lines = page.read_text().splitlines()
    name, _, section = page.name.rpartition(".")
    assert plain(lines[0]).startswith(f".TH {name.upper()} {section} ")
    assert re.match(rf"{re.escape(name)}(, .+)? - ", plain(lines[2]))
    see_also = entries(page)["SEE ALSO", ""]
    others = [f"{p.stem}({p.suffix[1:]})" for p in PAGES if p != page]
    assert [other for other in others if other not in see_also] == []


def test_the_page_of_the_configuration_is_found_under_the_name_of_each_file() -> None:
    assert {alias.stem for alias in ALIASES} == {"mender.conf", "mender-connect.conf"}
    assert {alias.read_text() for alias in ALIASES} == {f".so man5/{CONFIGURATION.name}\n"}
    names = plain(CONFIGURATION.read_text().splitlines()[2]).partition(" - ")[0].split(", ")
    assert set(names) == {CONFIGURATION.stem, *(alias.stem for alias in ALIASES)}


@pytest.mark.real
def test_man_shows_the_page_of_the_configuration_for_an_alias(tmp_path: Path) -> None:
    if not shutil.which("man"):
        pytest.skip("man is not installed")
    (tmp_path / "man5").mkdir()
    for path in FILES:
        if path.suffix == ".5":
            shutil.copy(path, tmp_path / "man5")
    for alias in ALIASES:
        done = subprocess.run(
            ["man", "-M", tmp_path, "5", alias.stem], capture_output=True, text=True, check=False
        )
        assert (done.returncode, "ServerURL" in done.stdout) == (0, True), done


@pytest.mark.real
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.parametrize(
    "checker",
    [("mandoc", "-T", "lint", "-W", "all"), ("groff", "-man", "-ww", "-z")],
    ids=lambda command: str(command[0]),
)
def test_man_has_nothing_to_complain_of(page: Path, checker: tuple[str, ...]) -> None:
    if not shutil.which(checker[0]):
        pytest.skip(f"{checker[0]} is not installed")
    done = subprocess.run([*checker, page], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
