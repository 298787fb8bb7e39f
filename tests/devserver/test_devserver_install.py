"""`make install-devserver`: the development server on a desk, with or without the client."""

import os
import subprocess
import sys
from pathlib import Path

from helpers.device import REPO

from mender_oneshot import __version__


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
    program = tmp_path / "bin/mender-oneshot-devserver"
    assert files(tmp_path / "bin") == {program.name}
    for words, code, out in (
        (["--version"], 0, __version__),
        (["devices", "--directory", "/nothing"], 69, ""),
        (["serve", "--directory", str(REPO / "README.md")], 73, ""),
    ):
        done = subprocess.run([program, *words], cwd="/", capture_output=True, text=True, check=False)
        assert (done.returncode, out in done.stdout) == (code, True), done
    make("uninstall-devserver", tmp_path)
    assert files(tmp_path) == set()


def test_every_module_of_the_server_is_installed_and_compiled_for_its_place(tmp_path: Path) -> None:
    make("install-devserver", tmp_path)
    share = tmp_path / "share/mender-oneshot-devserver"
    found = files(share)
    wanted = {str(p.relative_to(REPO)) for p in (REPO / "mender_oneshot/devserver").glob("*.py")}
    assert {name for name in found if name.endswith(".py")} == wanted | {"mender_oneshot/__init__.py"}
    assert len(found) == 2 * (len(wanted) + 1)
