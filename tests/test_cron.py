"""The lines for cron: what is enabled when, and that one a minute does no harm."""

import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.device import REPO, Device, Run
from helpers.real_daemon import need
from helpers.uptime import up_for
from helpers.waiting import until

from mender_oneshot.devserver import DevServer

DEBIAN = REPO / "cron/mender-oneshot"
BUSYBOX = REPO / "cron/busybox-crontab"
PROGRAM = "/usr/local/bin/mender-oneshot"
IDLE = "/usr/local/share/mender-oneshot/idle.sh"
TICKS = 25


def jobs(text: str) -> list[str]:
    """The lines of a crontab that cron acts upon."""
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def enabled(text: str) -> str:
    """The Debian file after what its comment says: the "#" of the last line removed."""
    *others, last = text.splitlines()
    return "\n".join([*others, last.removeprefix("#")]) + "\n"


def words() -> list[str]:
    """What the lines call the program with."""
    (job,) = jobs(BUSYBOX.read_text())
    program, *rest = job.rpartition(" || ")[2].split()
    assert program == PROGRAM
    return rest


def tick(device: Device, wrapper: tuple[str, ...] = ()) -> Run:
    return device.run(*words(), wrapper=wrapper)


def test_the_debian_file_is_off_as_installed() -> None:
    assert [line.partition("=")[0] for line in jobs(DEBIAN.read_text())] == ["PATH"]
    # run-parts' names: cron reads no others.
    assert re.fullmatch(r"[A-Za-z0-9_-]+", DEBIAN.name)
    assert DEBIAN.read_bytes().endswith(b"\n")
    assert BUSYBOX.read_bytes().endswith(b"\n")


def test_enabled_it_does_as_busybox_does() -> None:
    path, job = jobs(enabled(DEBIAN.read_text()))
    assert set(os.defpath.split(":")) <= set(path.removeprefix("PATH=").split(":"))
    unless = f"[ -d /run/systemd/system ] || [ ! -x {PROGRAM} ]"
    (other,) = jobs(BUSYBOX.read_text())
    assert job == f"* * * * * root {unless} || {other.removeprefix('* * * * * ')}"


@pytest.mark.real
@pytest.mark.parametrize(
    ("systemd", "there"),
    [(False, True), (True, True), (False, False)],
    ids=["no systemd", "systemd", "removed"],
)
@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash", "busybox sh"])
def test_where_systemd_runs_or_the_program_is_gone_the_debian_line_does_nothing(
    tmp_path: Path, systemd: bool, there: bool, shell: str
) -> None:
    need("unshare", "busybox")
    program = tmp_path / "mender-oneshot"
    if there:
        program.write_text(f"#!/bin/sh\necho $@ >{tmp_path}/called\n")
        program.chmod(0o755)
    job = jobs(enabled(DEBIAN.read_text()))[1].partition(" root ")[2].replace(PROGRAM, str(program))
    prepare = (
        f"mount -t tmpfs run /run; {'mkdir -p /run/systemd/system;' if systemd else ''} exec {shell} -c "
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-euc", f'{prepare} "$0"', job], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "called").exists() == (there and not systemd)


@pytest.mark.real
@pytest.mark.parametrize("line", ["Debian", "busybox"])
@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash", "busybox sh"])
def test_while_nothing_is_due_the_line_starts_no_program(
    accepted: Device, tmp_path: Path, shell: str, line: str
) -> None:
    need("unshare", "busybox")
    program = tmp_path / "mender-oneshot"
    program.write_text(f"#!/bin/sh\necho called >>{tmp_path}/called\n")
    program.chmod(0o755)
    text = enabled(DEBIAN.read_text()) if line == "Debian" else BUSYBOX.read_text()
    job = jobs(text)[-1].removeprefix("* * * * * ").removeprefix("root ")
    job = job.replace(PROGRAM, str(program)).replace(IDLE, str(REPO / "cron/idle.sh"))

    def called() -> bool:
        (tmp_path / "called").unlink(missing_ok=True)
        command = [*shell.split(), "-c", job]
        quiet = ["unshare", "-m", "sh", "-euc", 'mount -t tmpfs run /run; exec "$@"', "sh", *command]
        done = subprocess.run(quiet, env=accepted.env(), capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        return (tmp_path / "called").exists()

    accepted.ok("run", "--all")
    assert called()
    long_ago(accepted)
    accepted.ok(*words())
    assert not called()
    accepted.configure(UpdatePollIntervalSeconds=600)
    assert called()


def long_ago(device: Device) -> None:
    """Make the files of the device older than the minute of a tick."""
    for path in (device.conf, device.data, *device.conf.iterdir(), *device.data.iterdir()):
        os.utime(path, (time.time() - 60,) * 2)


def test_ticks_with_nothing_due_ask_nobody_and_say_nothing(accepted: Device, server: DevServer) -> None:
    tick(accepted)
    asked = len(server.requests)
    state = (accepted.data / "mender-oneshot.json").read_bytes()
    assert {tick(accepted) for _ in range(TICKS)} == {Run(0, "", "")}
    assert len(server.requests) == asked
    assert (accepted.data / "mender-oneshot.json").read_bytes() == state


def test_ticks_of_a_device_that_is_not_accepted_ask_once(device: Device, server: DevServer) -> None:
    first = tick(device)
    assert first.code == 77
    assert {tick(device) for _ in range(TICKS)} == {Run(0, "", "")}
    assert len(server.requests) == 1


def test_ticks_while_a_run_is_at_work_give_way(
    accepted: Device, server: DevServer, release: Callable[..., str]
) -> None:
    release(size=100_000)
    server.faults.add(match="GET /storage/*", stall_after=50_000)
    working = accepted.start(*words())
    try:
        server.faults.wait_for_stall()
        asked = len(server.requests)
        # Silent, with an exit code that tells why; cron ignores both.
        assert {tick(accepted) for _ in range(5)} <= {Run(75, "", ""), Run(0, "", "")}
        assert len(server.requests) == asked
        server.faults.release()
        until(lambda: working.poll() is not None, "the first ends")
    finally:
        working.kill()
        working.communicate()
    assert len([seen for seen in server.requests if seen.path.startswith("/storage/")]) == 1


@pytest.mark.real
def test_a_fleet_that_powers_up_together_is_spread(accepted: Device, server: DevServer) -> None:
    need("unshare")
    if subprocess.run(["unshare", *up_for(1), "true"], capture_output=True, check=False).returncode:
        pytest.skip("time namespaces need root, and a kernel that has them")
    accepted.configure(StartSpreadSeconds=300)
    accepted.set_spread(0.5)
    accepted.make_due("check-update", "send-inventory")
    asked = len(server.requests)
    assert {tick(accepted, ("unshare", *up_for(seconds))) for seconds in (1, 60, 120)} == {Run(0, "", "")}
    assert len(server.requests) == asked
    tick(accepted, ("unshare", *up_for(180)))
    asked_for = {seen.path.rpartition("/")[2] for seen in server.requests[asked:]}
    assert asked_for == {"next", "attributes"}
