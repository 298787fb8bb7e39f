"""What bash, zsh and fish offer at a TAB is what `--help` says, asked of the shells themselves."""

import os
import pty
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from helpers.device import REPO
from helpers.readable import readable

from mender_oneshot import cli
from mender_oneshot.devserver import __main__ as devserver

COMPLETIONS = REPO / "docs" / "completions"

CLIENT = "mender-oneshot"
DEVSERVER = "mender-oneshot-devserver"
GROUPS: dict[str, click.Group] = {CLIENT: cli.cli, DEVSERVER: devserver.command}
LEVELS = set(cli.LEVELS)


def options(program: str, command: click.Command) -> dict[str, str]:
    """The options of a command, each form by itself, and what is said of it."""
    group = GROUPS[program]
    context = click.Context(group, **group.context_settings)
    return {
        name: (option.help or "")
        for option in command.get_params(
            context if command is group else click.Context(command, parent=context)
        )
        if isinstance(option, click.Option) and not option.hidden
        for name in option.opts
    }


VISIBLE = {
    program: {name: command for name, command in group.commands.items() if not command.hidden}
    for program, group in GROUPS.items()
}


def summary(program: str, command: click.Command) -> str:
    """The sentence in the list of commands."""
    return (command.help or "").splitlines()[0] if program == DEVSERVER else command.help or ""


COMMANDS = {
    program: {name: summary(program, command) for name, command in visible.items()}
    for program, visible in VISIBLE.items()
}


def of_every_program(program: str) -> dict[str, set[str]]:
    """The lines that each program completes in the same way."""
    commands = set(COMMANDS[program])
    return {
        "": commands,
        "d": {name for name in commands if name.startswith("d")},
        "-": set(options(program, GROUPS[program])),
        **{f"{name} -": set(options(program, command)) for name, command in VISIBLE[program].items()},
    }


WANTED: dict[str, dict[str, set[str]]] = {
    CLIENT: {
        **of_every_program(CLIENT),
        "s": {name for name in COMMANDS[CLIENT] if name.startswith("s")},
        "--no": {"--no-syslog"},
        "-c /etc/x --data run ": set(COMMANDS[CLIENT]),
        "--config=/etc/x ": set(COMMANDS[CLIENT]),
        "-l ": LEVELS,
        "--log-level ": LEVELS,
        "--log-level=": LEVELS,
        "-l de": {"debug"},
        "--max-runtime ": set(),
        "run --only ": {"update", "inventory"},
        "run --only update --al": {"--all"},
        "run --max-runtime ": set(),
        "--syslog -d /data report --su": {"--success"},
    },
    DEVSERVER: {
        **of_every_program(DEVSERVER),
        "serve --acc": {"--accept-all"},
        "serve --host ": set(),
        "serve --port=": set(),
        "deploy release-2 --w": {"--wait"},
    },
}

Answers = dict[str, dict[str, str]]
"""What is offered for each line, with what is said of it."""

BASH = """
source "$0"
program=$1
compopt() { :; }
while read -r line; do
    eval "COMP_WORDS=($program $line)"
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    "_${program//-/_}" "$program" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    (IFS=$'\\t'; echo "${COMPREPLY[*]}")
done
"""


def ask_bash(program: str, lines: list[str], directory: Path) -> Answers:
    """Call the function that bash would, with the line cut up as bash does it: also at each "="."""
    cut = [re.findall(r"=|[^=\s]+", line) + [""] * (not line or line[-1] in " ") for line in lines]
    done = subprocess.run(
        ["bash", "--norc", "-u", "-c", BASH, COMPLETIONS / f"{program}.bash", program],
        input="".join(shlex.join(line) + "\n" for line in cut),
        capture_output=True,
        text=True,
        check=True,
    )
    assert not done.stderr
    offered = done.stdout.split("\n")
    return {line: dict.fromkeys(offer.split(), "") for line, offer in zip(lines, offered, strict=False)}


def ask_fish(program: str, lines: list[str], directory: Path) -> Answers:
    script = f"source {COMPLETIONS}/{program}.fish\n"
    script += "".join(f"complete -C {shlex.quote(f'{program} {line}')}; echo @\n" for line in lines)
    done = subprocess.run(
        ["fish", "--no-config", "--private"],
        input=script,
        env={"PATH": os.environ["PATH"], "HOME": str(directory), "XDG_DATA_HOME": str(directory)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not done.stderr
    answers = {}
    for line, offer in zip(lines, done.stdout.split("@\n"), strict=False):
        said = (row.partition("\t") for row in offer.splitlines())
        answers[line] = {word.rpartition("=")[2]: about for word, _, about in said}
    return answers


# Notes what is offered, between two marks, on the way to the terminal.
ZSHRC = """
PROMPT= RPROMPT=
fpath=($ZDOTDIR/functions $fpath)
autoload -Uz compinit
compinit -u -D
bindkey '^I' complete-word
bindkey '^U' kill-whole-line
mark() {
    print '<@>'
    compprefuncs=(mark)
    comppostfuncs=(mark)
}
compprefuncs=(mark)
comppostfuncs=(mark)
compadd() {
    local -a offered
    if (( ${@[(I)-[OAD]*]} == 0 )); then
        builtin compadd -O offered "$@"
        print -l -- $offered
    fi
    builtin compadd "$@"
}
print '<@>'
"""


def ask_zsh(program: str, lines: list[str], directory: Path) -> Answers:
    """Press TAB in an interactive zsh, on a terminal of its own."""
    (directory / ".zshrc").write_text(ZSHRC)
    (directory / "functions").mkdir()
    shutil.copy(COMPLETIONS / f"{program}.zsh", directory / "functions" / f"_{program}")
    ours, theirs = pty.openpty()
    shell = subprocess.Popen(
        ["zsh", "-o", "no_global_rcs", "-i"],
        env={"PATH": os.environ["PATH"], "HOME": str(directory), "ZDOTDIR": str(directory), "TERM": "dumb"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=directory,
        start_new_session=True,
    )
    os.close(theirs)
    heard = b""

    def hear() -> str:
        """Return what zsh says before its next mark."""
        nonlocal heard
        while b"<@>" not in heard:
            assert readable(ours, 30), heard
            heard += os.read(ours, 4096)
        said, _, heard = heard.partition(b"<@>")
        return said.decode()

    answers = {}
    try:
        hear()
        for line in lines:
            os.write(ours, f"\x15{program} {line}\t".encode())
            hear()
            answers[line] = dict.fromkeys(hear().split(), "")
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)
    return answers


@pytest.mark.parametrize("program", GROUPS)
@pytest.mark.parametrize(
    ("shell", "ask"),
    [
        ("bash", ask_bash),
        pytest.param("zsh", ask_zsh, marks=pytest.mark.real),
        pytest.param("fish", ask_fish, marks=pytest.mark.real),
    ],
)
def test_the_shell_completes_commands_options_and_values(
    shell: str, ask: Callable[[str, list[str], Path], Answers], program: str, tmp_path: Path
) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    wanted = WANTED[program]
    answers = ask(program, list(wanted), tmp_path)
    assert {line: set(offered) for line, offered in answers.items()} == wanted


@pytest.mark.real
@pytest.mark.parametrize("program", GROUPS)
def test_fish_says_what_the_help_says(program: str, tmp_path: Path) -> None:
    if not shutil.which("fish"):
        pytest.skip("fish is not installed")
    answers = ask_fish(program, list(WANTED[program]), tmp_path)
    assert answers[""] == COMMANDS[program]
    assert answers["-"] == options(program, GROUPS[program])
    for name, command in VISIBLE[program].items():
        assert answers[f"{name} -"] == options(program, command)


@pytest.mark.parametrize("program", GROUPS)
def test_zsh_says_what_the_help_says(program: str) -> None:
    text = (COMPLETIONS / f"{program}.zsh").read_text()
    commands = re.findall(r"^    '([a-z-]+):(.+)'$", text, re.MULTILINE)
    assert dict(commands) == COMMANDS[program]
    group, visible = GROUPS[program], VISIBLE[program]
    said = {help for command in [group, *visible.values()] for help in options(program, command).values()}
    assert set(re.findall(r"\[([A-Z][^]]+)\]", text)) == said


@pytest.mark.real
@pytest.mark.parametrize("program", GROUPS)
def test_bash_finds_it_where_it_is_installed(program: str, tmp_path: Path) -> None:
    """bash-completion loads the file by its name, and the function is bound to the program."""
    if not Path("/usr/share/bash-completion/bash_completion").exists():
        pytest.skip("bash-completion is not installed")
    place = tmp_path / "bash-completion" / "completions"
    place.mkdir(parents=True)
    shutil.copy(COMPLETIONS / f"{program}.bash", place / program)
    done = subprocess.run(
        [
            "bash",
            "--norc",
            "-c",
            "source /usr/share/bash-completion/bash_completion; "
            f"_completion_loader {program}; complete -p {program}",
        ],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"complete -F _{program.replace('-', '_')} {program}\n", done.stderr
