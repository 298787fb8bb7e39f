"""A user who is not root: what needs no secret works, and what needs root says so."""

import os
import subprocess

import pytest
from helpers.device import REPO, SYSTEM_PYTHON, Device, Run, need_libraries

from mender_oneshot.devserver import DevServer

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

USER = 12345


@pytest.fixture
def python() -> str:
    """An interpreter that every user can start."""
    need_libraries(SYSTEM_PYTHON)
    return SYSTEM_PYTHON


@pytest.fixture
def installed(accepted: Device) -> Device:
    """A device whose files have the modes that installing and running as root give them."""
    for path in (accepted.root, *accepted.root.parents):
        if path.stat().st_mode & 0o005 != 0o005:
            path.chmod(0o755)
        if path.name.startswith("pytest-of"):
            break
    if subprocess.run(["test", "-r", REPO / "pyproject.toml"], user=USER, check=False).returncode:
        pytest.skip("only root can read this checkout")
    accepted.environment["PYTHONDONTWRITEBYTECODE"] = "1"
    return accepted


def as_user(device: Device, *words: str) -> Run:
    return device.run(*words, user=USER, group=USER, extra_groups=[])


@pytest.mark.parametrize("conf_mode", [0o644, 0o600])
@pytest.mark.parametrize("data_mode", [0o755, 0o700])
def test_what_needs_no_secret_works_for_everybody(installed: Device, conf_mode: int, data_mode: int) -> None:
    (installed.conf / "mender.conf").chmod(conf_mode)
    installed.data.chmod(data_mode)
    assert as_user(installed, "--version").code == 0
    assert as_user(installed, "--help").code == 0
    shown = as_user(installed, "show-artifact")
    assert (shown.code, shown.out) == (0, "release-1\n")
    told = as_user(installed, "status")
    assert told.code == 0
    assert "artifact        release-1" in told.out
    assert "authorized      unknown" in told.out
    assert "next            unknown" in told.out
    assert "mender-oneshot.json: Permission denied; run this as root." in told.out
    facts = as_user(installed, "status", "--json").json
    assert (facts["authorized"], facts["next_step"], facts["installing"]) == (None, None, None)


@pytest.mark.parametrize(
    "words",
    ["run", "run --all", "auth", "bootstrap", "check-update", "send-inventory", "download", "install"]
    + ["report --success"],
)
@pytest.mark.parametrize("data_mode", [0o755, 0o700])
def test_what_needs_root_says_so(installed: Device, server: DevServer, words: str, data_mode: int) -> None:
    installed.data.chmod(data_mode)
    asked = len(server.requests)
    done = as_user(installed, *words.split())
    assert done.code in (74, 78), done
    assert done.err.endswith("Permission denied; run this as root.\n")
    assert len(done.err.splitlines()) == 1
    assert len(server.requests) == asked
