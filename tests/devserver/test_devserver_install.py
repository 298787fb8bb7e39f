"""`make install-devserver`: the development server on a desk, with or without the client."""

import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import click
from helpers.device import REPO

from mender_oneshot import __version__
from mender_oneshot.devserver import __main__ as program
from mender_oneshot.devserver.commands import COMMANDS


def make(target: str, prefix: Path) -> None:
    done = subprocess.run(
        ["make", "-s", "-C", REPO, target, f"PREFIX={prefix}", f"PYTHON={sys.executable}"],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_the_installed_server_runs_without_the_client_and_is_removed_completely(tmp_path: Path) -> None:
    make("install-devserver", tmp_path)
    installed = tmp_path / "bin/mender-oneshot-devserver"
    assert files(tmp_path / "bin") == {installed.name}
    assert files(tmp_path / "share") > {
        "man/man1/mender-oneshot-devserver.1",
        "bash-completion/completions/mender-oneshot-devserver",
        "zsh/site-functions/_mender-oneshot-devserver",
        "fish/vendor_completions.d/mender-oneshot-devserver.fish",
    }
    for words, code, out in (
        (["--version"], 0, __version__),
        (["devices", "--directory", "/nothing"], 69, ""),
        (["serve", "--directory", str(REPO / "README.md")], 73, ""),
    ):
        done = subprocess.run([installed, *words], cwd="/", capture_output=True, text=True, check=False)
        assert (done.returncode, out in done.stdout) == (code, True), done
    make("uninstall-devserver", tmp_path)
    assert files(tmp_path) == set()


def test_the_installed_server_has_the_files_of_the_page(tmp_path: Path) -> None:
    make("install-devserver", tmp_path)
    words = ["--port", "0", "--http", "--directory", str(tmp_path / "directory")]
    installed = tmp_path / "bin/mender-oneshot-devserver"
    with subprocess.Popen([installed, *words], cwd="/", stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            server.stdout.readline()
            page = re.fullmatch(r"The web page is (http://\S+/)\.\n", server.stdout.readline())
            assert page
            for name in ("", *(f"devserver/page/{name}" for name in ("page.css", "page.js", "xterm.mjs"))):
                with urllib.request.urlopen(page[1] + name, timeout=60) as reply:
                    assert reply.status == 200
        finally:
            server.terminate()


def test_every_module_of_the_server_is_installed_and_compiled_for_its_place(tmp_path: Path) -> None:
    make("install-devserver", tmp_path)
    share = tmp_path / "share/mender-oneshot-devserver"
    found = files(share)
    wanted = {str(p.relative_to(REPO)) for p in (REPO / "mender_oneshot/devserver").glob("*.py")}
    assert {name for name in found if name.endswith(".py")} == wanted | {"mender_oneshot/__init__.py"}
    web = {
        f"mender_oneshot/devserver/web/{path.name}"
        for path in (REPO / "mender_oneshot/devserver/web").iterdir()
    }
    assert web < found
    assert len(found) == 2 * (len(wanted) + 1) + len(web)


def test_the_man_page_has_every_command_its_sentence_and_the_exit_codes() -> None:
    page = (REPO / "docs/man/mender-oneshot-devserver.1").read_text().replace("\\-", "-")
    for name, command in program.command.commands.items():
        entry = page[page.index(f"\\fB{name}\\fR") :]
        assert entry.splitlines()[1].startswith((command.help or "?").splitlines()[0].split(".")[0]), name
    codes = program.EPILOG.partition("Exit codes:\n")[2]
    assert len(codes.splitlines()) == 9
    for line in codes.splitlines():
        number, _, meaning = line.strip().partition(" ")
        assert f".TP\n{number}\n{meaning.strip()}\n" in page


def test_each_common_option_is_in_the_man_page() -> None:
    page = (REPO / "docs/man/mender-oneshot-devserver.1").read_text().replace("\\-", "-")
    names = {
        name
        for command in COMMANDS
        for option in command.params
        if isinstance(option, click.Option)
        for name in option.opts
    }
    assert [name for name in sorted(names) if f"\\fB{name}\\fR" not in page] == []
