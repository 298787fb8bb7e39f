"""What a parent leaves to its children changes nothing of what a run decides."""

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.device import Device
from helpers.silent_server import silent_after

from mender_oneshot.devserver import DevServer

EVERY = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


def ignoring(*numbers: int) -> Callable[[], None]:
    def ignore() -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)

    return ignore


def blocking() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, EVERY)


def descriptors() -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for number in range(3, 1200):
        os.dup2(0, number, inheritable=True)


def limited(kind: int, most: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(kind, (most, most))


PARENTS: dict[str, Callable[[], object]] = {
    "SIGCHLD ignored": ignoring(signal.SIGCHLD),
    "every signal ignored": ignoring(*EVERY),
    "every signal blocked": blocking,
    "umask 000": lambda: os.umask(0),
    "umask 777": lambda: os.umask(0o777),
    "1200 descriptors": descriptors,
    "few descriptors": limited(resource.RLIMIT_NOFILE, 40),
    "a session of its own": os.setsid,
    "nice": lambda: os.nice(19),
}


@pytest.mark.parametrize("parent", PARENTS)
def test_a_failing_script_fails_and_a_good_one_works(device: Device, server: DevServer, parent: str) -> None:
    device.script("identity/mender-device-identity", "#!/bin/sh\necho mac=1\nexit 4\n")
    done = device.run("auth", preexec_fn=PARENTS[parent], close_fds=parent != "1200 descriptors")
    assert (done.code, "it exited with status 4" in done.err) == (78, True), done
    assert not server.devices
    device.script("identity/mender-device-identity", "#!/bin/sh\necho mac=1\n")
    done = device.run("auth", preexec_fn=PARENTS[parent], close_fds=parent != "1200 descriptors")
    assert (done.code, len(server.devices)) == (77, 1), done
    modes = {path.name: path.stat().st_mode & 0o777 for path in device.data.iterdir()}
    del modes["device_type"]
    assert set(modes.values()) == {0o600}, modes


@pytest.mark.parametrize("parent", ["every signal ignored", "every signal blocked"])
def test_the_time_limit_holds(device: Device, parent: str) -> None:
    device.environment["PYTHONWARNINGS"] = "error,ignore::ResourceWarning"
    with silent_after(b"") as port:
        device.configure(ServerURL=f"https://127.0.0.1:{port}")
        done = device.run("--max-runtime", "8", "auth", preexec_fn=PARENTS[parent])
    assert (done.code, "time limit of 8 s" in done.err) == (75, True), done
    assert device.failures["auth"] == 1


def test_scripts_and_the_sub_updater_can_be_ended(
    accepted: Device, release: Callable[..., str], tmp_path: Path
) -> None:
    """A SIGTERM that our caller ignores or blocks is not ignored by what we start."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    accepted.sub_updater(f"grep -E '^Sig(Blk|Ign)' /proc/self/status > {gate}\n")
    release()

    def deaf() -> None:
        kept = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT}  # as nohup and a shell's `&` set them
        for number in kept:
            signal.signal(number, signal.SIG_DFL)
        ignoring(*(EVERY - kept))()
        blocking()

    assert accepted.run("run", "--all", "--force", preexec_fn=deaf).code == 0
    blocked, ignored = (int(line.split()[1], 16) for line in gate.read_text().splitlines())
    # Two signals are the C library's own, and a process that it has spawned ignores them.
    ours = sum(1 << number - 1 for number in signal.valid_signals())
    assert (blocked & ours, ignored & ours) == (0, 0)


def test_a_removed_working_directory_changes_no_exit_code(accepted: Device, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    wrapper = ("sh", "-c", f'cd {gone} && rmdir {gone} && exec "$@"', "sh")
    assert accepted.run("run", "--all", "--force", wrapper=wrapper).code == 0
    assert accepted.run("status", wrapper=("sh", "-c", f"mkdir {gone}; {wrapper[2]}", "sh")).code == 0


@pytest.mark.parametrize(
    ("kind", "most", "codes"),
    [
        (resource.RLIMIT_FSIZE, 0, (73,)),
        (resource.RLIMIT_AS, 60 << 20, (0, 75)),
        (resource.RLIMIT_STACK, 256 << 10, (0, 75)),
        (resource.RLIMIT_NOFILE, 12, (0, 74, 75)),
    ],
)
def test_small_limits_end_in_a_sentence(
    accepted: Device, kind: int, most: int, codes: tuple[int, ...]
) -> None:
    before = accepted.token
    done = accepted.run("check-update", preexec_fn=limited(kind, most))
    assert done.code in codes, done
    assert accepted.token == before
    accepted.ok("check-update")
