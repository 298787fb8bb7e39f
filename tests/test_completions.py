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

COMPLETIONS = REPO / "docs" / "completions"

PROGRAM = click.Context(cli.cli, **cli.cli.context_settings)
LEVELS = set(cli.LEVELS)


def options(command: click.Command) -> dict[str, str]:
    """The options of a command, each form by itself, and what is said of it."""
    context = PROGRAM if command is cli.cli else click.Context(command, parent=PROGRAM)
    return {
        name: (option.help or "")
        for option in command.get_params(context)
        if isinstance(option, click.Option) and not option.hidden
        for name in option.opts
    }


VISIBLE = {name: command for name, command in cli.cli.commands.items() if not command.hidden}
COMMANDS = {name: command.help or "" for name, command in VISIBLE.items()}

WANTED: dict[str, set[str]] = {
    "": set(COMMANDS),
    "s": {name for name in COMMANDS if name.startswith("s")},
    "-": set(options(cli.cli)),
    "--no": {"--no-syslog"},
    "-c /etc/x --data run ": set(COMMANDS),
    "--config=/etc/x ": set(COMMANDS),
    "-l ": LEVELS,
    "--log-level ": LEVELS,
    "--log-level=": LEVELS,
    "-l de": {"debug"},
    "--max-runtime ": set(),
    "run --only ": {"update", "inventory"},
    "run --only update --al": {"--all"},
    "run --max-runtime ": set(),
    "--syslog -d /data report --su": {"--success"},
    **{f"{name} -": set(options(command)) for name, command in VISIBLE.items()},
}

Answers = dict[str, dict[str, str]]
"""What is offered for each line, with what is said of it."""

BASH = """
source "$0"
compopt() { :; }
while read -r line; do
    eval "COMP_WORDS=(mender-oneshot $line)"
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _mender_oneshot mender-oneshot "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    (IFS=$'\\t'; echo "${COMPREPLY[*]}")
done
"""


def ask_bash(lines: list[str], directory: Path) -> Answers:
    """Call the function that bash would, with the line cut up as bash does it: also at each "="."""
    cut = [re.findall(r"=|[^=\s]+", line) + [""] * (not line or line[-1] in " ") for line in lines]
    done = subprocess.run(
        ["bash", "--norc", "-u", "-c", BASH, COMPLETIONS / "mender-oneshot.bash"],
        input="".join(shlex.join(line) + "\n" for line in cut),
        capture_output=True,
        text=True,
        check=True,
    )
    assert not done.stderr
    offered = done.stdout.split("\n")
    return {line: dict.fromkeys(offer.split(), "") for line, offer in zip(lines, offered, strict=False)}


def ask_fish(lines: list[str], directory: Path) -> Answers:
    script = f"source {COMPLETIONS}/mender-oneshot.fish\n"
    script += "".join(f"complete -C {shlex.quote('mender-oneshot ' + line)}; echo @\n" for line in lines)
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


def ask_zsh(lines: list[str], directory: Path) -> Answers:
    """Press TAB in an interactive zsh, on a terminal of its own."""
    (directory / ".zshrc").write_text(ZSHRC)
    (directory / "functions").mkdir()
    shutil.copy(COMPLETIONS / "mender-oneshot.zsh", directory / "functions" / "_mender-oneshot")
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
            os.write(ours, f"\x15mender-oneshot {line}\t".encode())
            hear()
            answers[line] = dict.fromkeys(hear().split(), "")
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)
    return answers


@pytest.mark.parametrize(
    ("shell", "ask"),
    [
        ("bash", ask_bash),
        pytest.param("zsh", ask_zsh, marks=pytest.mark.real),
        pytest.param("fish", ask_fish, marks=pytest.mark.real),
    ],
)
def test_the_shell_completes_commands_options_and_values(
    shell: str, ask: Callable[[list[str], Path], Answers], tmp_path: Path
) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    answers = ask(list(WANTED), tmp_path)
    assert {line: set(offered) for line, offered in answers.items()} == WANTED


@pytest.mark.real
def test_fish_says_what_the_help_says(tmp_path: Path) -> None:
    if not shutil.which("fish"):
        pytest.skip("fish is not installed")
    answers = ask_fish(list(WANTED), tmp_path)
    assert answers[""] == COMMANDS
    assert answers["-"] == options(cli.cli)
    for name, command in VISIBLE.items():
        assert answers[f"{name} -"] == options(command)


def test_zsh_says_what_the_help_says() -> None:
    text = (COMPLETIONS / "mender-oneshot.zsh").read_text()
    commands = re.findall(r"^    '([a-z-]+):(.+)'$", text, re.MULTILINE)
    assert dict(commands) == COMMANDS
    said = {help for command in [cli.cli, *VISIBLE.values()] for help in options(command).values()}
    assert set(re.findall(r"\[([A-Z][^]]+)\]", text)) == said


@pytest.mark.real
def test_bash_finds_it_where_it_is_installed(tmp_path: Path) -> None:
    """bash-completion loads the file by its name, and the function is bound to the program."""
    if not Path("/usr/share/bash-completion/bash_completion").exists():
        pytest.skip("bash-completion is not installed")
    place = tmp_path / "bash-completion" / "completions"
    place.mkdir(parents=True)
    shutil.copy(COMPLETIONS / "mender-oneshot.bash", place / "mender-oneshot")
    done = subprocess.run(
        [
            "bash",
            "--norc",
            "-c",
            "source /usr/share/bash-completion/bash_completion; "
            "_completion_loader mender-oneshot; complete -p mender-oneshot",
        ],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "complete -F _mender_oneshot mender-oneshot\n", done.stderr
