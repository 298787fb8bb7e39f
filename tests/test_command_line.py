"""The command line: click and the fast path parse it to the same result, and wrong usage is exit code 64."""

import json
import os
import re
import subprocess
from typing import Any

import pytest
from helpers.device import REPO
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from mender_oneshot import __version__, cli
from mender_oneshot.fast_path import parse
from mender_oneshot.options import Options

PLAIN_COMMANDS = [
    *("run", "check-update", "send-inventory", "download", "install", "auth"),
    *("resume", "commit", "rollback"),
]
UNLIMITED = ("terminal", "resume", "commit", "rollback")
COMMANDS = [*PLAIN_COMMANDS, "bootstrap", "report", "terminal", "status", "show-artifact"]


def read(line: str) -> Options | cli.Reply:
    return cli.read(line.split(), "mender-oneshot")


def printed(line: str) -> str:
    """What a command line prints that leaves nothing to do."""
    reply = read(line)
    assert isinstance(reply, cli.Reply)
    assert (reply.code, reply.sentence) == (0, "")
    return reply.text


def usage_error(line: list[str]) -> str:
    """What stderr gets for a command line that cannot be understood."""
    reply = cli.read(line, "mender-oneshot")
    assert isinstance(reply, cli.Reply)
    assert reply.code == 64
    assert reply.sentence.removeprefix("Wrong usage: ") in reply.text
    return reply.text


# The fast path.

WAYS_TO_RUN = [
    ["run", "--all"],
    ["run", "--all", "--only", "update"],
    ["run", "--all", "--only", "inventory"],
]
TERMINALS = [
    ["terminal"],
    ["terminal", "--wait", "0"],
    ["terminal", "--max-runtime", "9", "--max-sessions", "1"],
]
WITH_ARGUMENTS = ["verify", "extract", "announce"]
CALLS = [
    ["report", "--success"],
    ["report", "--failure"],
    ["verify", "release.mender"],
    ["extract", "release.mender", "a directory"],
    ["announce", "installing"],
]
OPTIONS = ["-c", "--config", "-b", "--fallback-config", "-d", "--data"]
values = st.sampled_from(
    ["", "/etc/x.conf", "-c", "--data", "run", "-", "--", "--help", "a b", "--config=x"]
) | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=10)
levels = st.tuples(st.sampled_from(["-l", "--log-level"]), st.sampled_from(["debug", "info", "error"]))
some_words = st.one_of(
    st.sampled_from(
        [
            *OPTIONS,
            *COMMANDS,
            *WITH_ARGUMENTS,
            "--success",
            "--failure",
            "--all",
            "--only",
            "update",
            "inventory",
            "--syslog",
            "--force",
            "--json",
            "--",
            "-x",
            "-l",
            "info",
            "loud",
            "daemon",
            "--wait",
            "--max-sessions",
            "--max-runtime",
            "0",
            "300",
            "-1",
            "123456789",
        ]
    ),
    values,
)
plain = st.tuples(
    st.lists(
        st.one_of(st.tuples(st.sampled_from(OPTIONS), values), st.just(("--syslog",)), levels), max_size=4
    ),
    st.sampled_from([*([command] for command in PLAIN_COMMANDS), *WAYS_TO_RUN, *TERMINALS, *CALLS]),
).map(lambda parts: [word for pair in parts[0] for word in pair] + parts[1])


@given(plain)
@example(["-c", "-d", "run"])
@example(["-c", "a", "-c", "b", "run", "--all"])
@examples(deadline=None, max_examples=300)
def test_the_fast_path_and_click_parse_a_plain_command_line_to_the_same_options(line: list[str]) -> None:
    options = parse(list(line))
    assert options is not None
    assert cli.read(line, "mender-oneshot") == options


@given(st.lists(some_words, max_size=6))
@examples(deadline=None, max_examples=300)
def test_the_fast_path_parses_no_command_line_otherwise_than_click(line: list[str]) -> None:
    before = list(line)
    options = parse(line)
    assert line == before
    if options is not None:
        assert cli.read(line, "mender-oneshot") == options


@pytest.mark.parametrize(
    "line",
    [
        "",
        "run --json",
        "run --force",
        "run --all --all",
        "-c",
        "-c run",
        "--config=/x run",
        "-c/x run",
        "report --success --failure",
        "verify -",
        "verify a b",
        "status",
        "--help",
        "-l loud run",
        "-l DEBUG run",
        "run -c /x",
        "-- run",
    ],
)
def test_the_fast_path_leaves_this_command_line_to_click(line: str) -> None:
    assert parse(line.split()) is None


# What the words mean.


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "report"])
def test_a_command_alone_is_read_with_the_defaults(command: str) -> None:
    assert read(command) == Options(command, max_runtime=0 if command in UNLIMITED else 900)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("run --all", Options("run", every_step=True)),
        ("run --force --json", Options("run", force=True, json=True)),
        ("run --only update", Options("run", only="update")),
        ("run --only=inventory --all", Options("run", only="inventory", every_step=True)),
        ("--syslog run --json", Options("run", syslog=True, json=True)),
        ("auth --fresh", Options("auth", fresh=True)),
        ("bootstrap --force", Options("bootstrap", force=True)),
        ("check-update --exit-code --json", Options("check-update", exit_code=True, json=True)),
        ("report --success", Options("report", status="success")),
        ("report --failure", Options("report", status="failure")),
        ("report --failure --success", Options("report", status="success")),
        ("status --json", Options("status", json=True)),
        ("-c /m --fallback-config /f --data /d status", Options("status", "/m", "/f", "/d")),
        ("--config=/m -b/f -d/d run", Options("run", "/m", "/f", "/d")),
        ("-l debug -L /log run", Options("run", log_level="debug", log_file="/log")),
        ("--log-level=ERROR --log-file=/log run", Options("run", log_level="error", log_file="/log")),
    ],
)
def test_options_are_read_before_and_after_the_command(line: str, expected: Options) -> None:
    assert read(line) == expected


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        ("run", 900),
        ("--max-runtime 5 run", 5),
        ("run --max-runtime 5", 5),
        ("--max-runtime 7 run --max-runtime 5", 5),
        ("--max-runtime 7 run --max-runtime 0", 0),
        ("--max-runtime 0 run", 0),
        ("--max-runtime 5 status", 5),
        ("--max-runtime 5 report --success", 5),
        ("report --success --max-runtime 5", 5),
        *((f"{command} --max-runtime 5", 5) for command in [*PLAIN_COMMANDS, "bootstrap"]),
    ],
)
def test_the_time_limit_before_or_after_the_command(line: str, seconds: float) -> None:
    request = read(line)
    assert isinstance(request, Options)
    assert request.max_runtime == seconds


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-F bootstrap", Options("bootstrap", force=True)),
        ("--forcebootstrap bootstrap", Options("bootstrap", force=True)),
        ("bootstrap -F", Options("bootstrap", force=True)),
        ("bootstrap --forcebootstrap", Options("bootstrap", force=True)),
        ("--no-syslog report --success", Options("report", status="success")),
        (
            "-d /data -l info -L /log --no-syslog show-artifact",
            Options("show-artifact", "", "", "/data", "info", "/log"),
        ),
        (
            "--data /data --log-level warning --log-file /log bootstrap",
            Options("bootstrap", "", "", "/data", "warning", "/log"),
        ),
        ("-F run", Options("run")),
    ],
)
def test_the_words_of_the_old_client(line: str, expected: Options) -> None:
    assert read(line) == expected


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error", "critical"])
def test_the_levels_of_the_old_client(level: str) -> None:
    assert read(f"-l {level} run") == Options("run", log_level=level)


# What ends at once.


@pytest.mark.parametrize("word", ["-v", "--version"])
def test_the_version(word: str) -> None:
    assert printed(word) == f"mender-oneshot {__version__}\n"


@pytest.mark.parametrize("line", ["--help", "-h", *(f"{command} --help" for command in COMMANDS)])
def test_the_help_goes_to_stdout(line: str) -> None:
    assert "mender-oneshot" in printed(line)


def test_the_help_cuts_no_sentence_at_80_columns() -> None:
    # click asks for the size of the terminal, which the tests do not have, and then takes 80 columns.
    lines = [line for line in printed("--help").splitlines() if re.match("  [a-z]", line)]
    assert len(lines) >= len(COMMANDS)
    assert [line for line in lines if not line.endswith(".")] == []


def test_the_help_names_commands_and_exit_codes() -> None:
    said = printed("--help")
    assert all(f"\n  {command} " in said for command in COMMANDS)
    assert all(f"\n    {code} " in said for code in (0, 1, 2, 16, 64, 65, 69, 73, 74, 75, 76, 77, 78))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["rum"], "rum"),
        (["run", "now"], "now"),
        (["--colour", "run"], "--colour"),
        (["run", "--exit-code"], "--exit-code"),
        (["--all", "run"], "--all"),
        (["-c"], "-c"),
        (["-l", "loud", "run"], "loud"),
        (["report"], "--success or --failure"),
        (["report", "success"], "success"),
        (["--max-runtime", "soon", "run"], "soon"),
        (["run", "--max-runtime", "-1"], "-1"),
        (["run", "--max-runtime"], "--max-runtime"),
        ([""], "No such command"),
        (["Run"], "Run"),
        (["daemon"], "cron"),
        (["daemon", "--force"], "timer"),
        (["-F", "daemon"], "this client has no daemon"),
        (["daemon", "--help"], "this client has no daemon"),
    ],
    ids=str,
)
def test_wrong_options_are_named_in_the_usage_error(line: list[str], said: str) -> None:
    assert said in usage_error(line)


@pytest.mark.parametrize("seconds", ["nan", "inf", "99999999999"])
@pytest.mark.parametrize("before", [True, False])
def test_a_time_limit_that_no_clock_can_count(seconds: str, before: bool) -> None:
    line = ["--max-runtime", seconds, "run"] if before else ["run", "--max-runtime", seconds]
    assert seconds in usage_error(line)


@given(st.lists(some_words, max_size=6))
@examples(deadline=None, max_examples=300)
def test_any_words_are_a_request_or_an_exit_code(line: list[str]) -> None:
    found = cli.read(line, "mender-oneshot")
    if isinstance(found, cli.Reply):
        assert found.code in (0, 64)
    else:
        assert found.command in COMMANDS + WITH_ARGUMENTS


# The same with Debian's click, as a device has it.

ASK = """
import json, sys
from mender_oneshot import cli
found = [cli.read(line, "mender-oneshot") for line in json.loads(sys.argv[1])]
print(json.dumps([one.code if isinstance(one, cli.Reply) else one for one in found]))
"""


def read_with(python: str, *lines: str) -> list[Any]:
    """What each command line is read as; a request is a list here."""
    done = subprocess.run(
        [python, "-c", ASK, json.dumps([line.split() for line in lines])],
        env={**os.environ, "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_every_click_reads_the_same(python: str) -> None:
    lines = [
        "run --all", "-c /m -b /f -d /d run", "--max-runtime 5 run", "run --max-runtime 5", "-F bootstrap",
        "--no-syslog -l debug -L /log report --failure", "check-update --exit-code --json",
        "status", "show-artifact --json", "auth --fresh", "-c -d run",
    ]  # fmt: skip
    assert read_with(python, *lines) == [
        list(found) for found in map(read, lines) if isinstance(found, Options)
    ]


def test_every_click_refuses_the_same(python: str) -> None:
    lines = ["rum", "daemon", "-F daemon", "report", "--colour run", "run --colour", "-l loud run", "-c"]
    assert read_with(python, *lines) == [64] * len(lines)
    assert read_with(python, "--version", "--help", "run --help", "-v", "-h") == [0] * 5


def test_no_command_is_wrong_usage() -> None:
    assert "Usage" in usage_error([])


@pytest.mark.parametrize(
    "python",
    [
        "newest",
        pytest.param("debian", marks=pytest.mark.real),
    ],
    indirect=True,
)
def test_every_click_misses_the_command(python: str) -> None:
    assert read_with(python, "", "-c /m", "--no-syslog") == [64] * 3
