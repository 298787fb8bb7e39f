"""The clients that are broken on purpose."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from board.broken import CLIENTS
from board.layout import REPO

PACKAGE = "usr/local/share/mender-oneshot/mender_oneshot"


@pytest.mark.parametrize("name", CLIENTS)
def test_a_broken_client_is_this_client_with_some_lines_changed(tmp_path: Path, name: str) -> None:
    modules = tmp_path / PACKAGE / "modules"
    shutil.copytree(REPO / "mender_oneshot/modules", modules)
    CLIENTS[name].change(tmp_path)
    changed = [
        path.name
        for path in modules.glob("*.py")
        if path.read_text() != (REPO / "mender_oneshot/modules" / path.name).read_text()
    ]
    assert changed
    for path in modules.glob("*.py"):
        compile(path.read_text(), path, "exec")


def test_a_client_that_has_changed_cannot_be_broken_unnoticed(tmp_path: Path) -> None:
    modules = tmp_path / PACKAGE / "modules"
    modules.mkdir(parents=True)
    (modules / "block_device.py").write_text("")
    with pytest.raises(LookupError):
        CLIENTS["no-sync"].change(tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", CLIENTS)
def test_a_broken_client_is_caught_on_the_board(name: str) -> None:
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("QEMU is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "board", "cut", "--broken", name, "--sample", "24"],
        cwd=REPO / "tests",
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "The broken client was caught." in done.stdout
