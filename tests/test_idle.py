"""After a run with nothing due, the next ones, and the shell of a timer or cron, exit at once."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.device import REPO, Device
from helpers.simulated_days import HOUR, TICK, ForkServer, Prompt, let_in
from hypothesis import given, settings
from hypothesis import strategies as st

from mender_oneshot import idle
from mender_oneshot.devserver import DevServer

SHELLS = [shell for shell in ("dash", "bash", "busybox sh") if shutil.which(shell.split()[0])]
SCRIPT = REPO / "cron/idle.sh"


def notes(device: Device) -> Path:
    """The directory of the two files of each kind."""
    return Path(f"{device.root / 'run'}{device.data}")


def watched(device: Device) -> list[Path]:
    """What decides, together with the clock, whether something is due."""
    conf, data = device.conf, device.data
    return [conf, conf / "mender.conf", data, data / "mender.conf", data / "mender-oneshot.json"]


def put_back(paths: list[Path], seconds: float) -> None:
    """Make files older."""
    for path in paths:
        if path.exists():
            at = path.stat().st_mtime - seconds
            os.utime(path, (at, at))


def is_idle(device: Device, shell: str, kind: str = "all") -> bool:
    """Return whether a shell finds that nothing is due."""
    done = subprocess.run(
        [*shell.split(), "-euc", f". {SCRIPT}; if idle {kind}; then exit 42; else exit 43; fi"],
        env=device.env(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode in (42, 43), done.stderr) == (True, "")
    return done.returncode == 42


def make_check_due(device: Device) -> None:
    """Make a check due without any trace of that but the content of the state."""
    path = device.data / "mender-oneshot.json"
    before = path.stat()
    device.make_hours_old("check-update", 2)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture
def resting(accepted: Device, server: DevServer) -> Device:
    """A device on which a run has found nothing due, some time after the last change."""
    accepted.ok("run", "--all")
    put_back(watched(accepted), 60)
    accepted.ok("run", "--all")
    make_check_due(accepted)
    return accepted


def runs(device: Device, server: DevServer) -> bool:
    """Return whether a run finds the check that is due."""
    asked = len(server.requests)
    device.ok("run", "--all")
    return len(server.requests) > asked


def test_the_next_run_and_every_shell_find_that_nothing_is_due(resting: Device, server: DevServer) -> None:
    assert sorted(path.name for path in notes(resting).glob("*.*")) == ["all.since", "all.until"]
    assert [is_idle(resting, shell) for shell in SHELLS] == [True] * len(SHELLS)
    assert not runs(resting, server)
    assert not any(is_idle(resting, shell, kind) for shell in SHELLS for kind in ("update", "inventory"))


def test_after_a_check_without_news_every_shell_finds_that_nothing_is_due(
    accepted: Device, server: DevServer
) -> None:
    accepted.ok("run", "--all")
    accepted.let_time_pass(2000, expire=False)
    put_back(watched(accepted), 60)
    assert runs(accepted, server)
    assert [is_idle(accepted, shell) for shell in SHELLS] == [True] * len(SHELLS)


def test_other_command_lines_ignore_the_time_stamps(resting: Device, server: DevServer) -> None:
    conf = str(resting.conf / "mender.conf")
    for words in (["-c", conf, "run"], ["--data", str(resting.data), "run"], ["run", "--force"]):
        asked = len(server.requests)
        resting.ok(*words)
        assert len(server.requests) > asked, words
        put_back(watched(resting), 60)
        make_check_due(resting)


def edit(path: str) -> Callable[[Device], object]:
    return lambda device: os.utime(device.root / path)


def clock(seconds: float) -> Callable[[Device], object]:
    """Set the clock: as seen from it, every file is older, or newer."""
    return lambda device: put_back([*watched(device), *notes(device).iterdir()], seconds)


def replace_state(device: Device) -> None:
    """Put an older copy of the state in its place."""
    path = device.data / "mender-oneshot.json"
    copy = Path(shutil.copy2(path, device.root / "copy"))
    copy.rename(path)


CHANGES: dict[str, Callable[[Device], object]] = {
    "mender.conf is edited": edit("etc/mender.conf"),
    "a file is added to its directory": lambda device: (device.conf / "new").touch(),
    "the fallback appears": lambda device: (device.data / "mender.conf").write_text("{}"),
    "the state is written": edit("lib/mender-oneshot.json"),
    "an old state replaces it": replace_state,
    "the time is up": clock(2 * HOUR),
    "the clock was set back": clock(-HOUR),
    "one stamp is gone": lambda device: (notes(device) / "all.since").unlink(),
    "the other stamp is gone": lambda device: (notes(device) / "all.until").unlink(),
    "after a boot": lambda device: shutil.rmtree(device.root / "run"),
    "another data directory": lambda device: device.environment.update(
        {"MENDER_DATASTORE_DIR": str(shutil.copytree(device.data, device.root / "other"))}
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_after_a_change_the_next_run_reads_its_files_again(
    resting: Device, server: DevServer, change: str
) -> None:
    CHANGES[change](resting)
    assert [is_idle(resting, shell) for shell in SHELLS] == [False] * len(SHELLS)
    assert runs(resting, server)


@pytest.mark.parametrize("name", ["update.lock", "artifact.mender"])
def test_a_file_that_appears_in_the_data_directory_is_seen(resting: Device, name: str) -> None:
    (resting.data / name).touch()
    assert [is_idle(resting, shell) for shell in SHELLS] == [False] * len(SHELLS)


def test_right_after_a_change_no_time_is_noted(accepted: Device) -> None:
    accepted.ok("run", "--all")
    accepted.ok("run", "--all")
    assert not list(notes(accepted).glob("*.*"))


def test_while_an_update_is_installed_no_time_is_noted(
    accepted: Device, server: DevServer, release: Callable[..., str]
) -> None:
    accepted.sub_updater()
    release()
    accepted.ok("run", "--all")
    accepted.ok("run", "--all")
    put_back(watched(accepted), 60)
    accepted.ok("run", "--all")
    assert not list(notes(accepted).glob("*.*"))


def test_before_the_spread_after_a_boot_is_over_no_time_is_noted(accepted: Device) -> None:
    accepted.ok("run", "--all")
    accepted.set_spread(0.999)
    uptime = time.clock_gettime(time.CLOCK_MONOTONIC)
    accepted.configure(StartSpreadSeconds=int(uptime * 2), UpdatePollIntervalSeconds=int(uptime * 3))
    put_back(watched(accepted), 60)
    accepted.ok("run", "--all")
    assert not list(notes(accepted).glob("*.*"))


def test_a_linked_configuration_is_read_each_time(accepted: Device) -> None:
    accepted.ok("run", "--all")
    path = accepted.conf / "mender.conf"
    path.rename(accepted.root / "target")
    path.symlink_to(accepted.root / "target")
    put_back(watched(accepted), 60)
    accepted.ok("run", "--all")
    assert not list(notes(accepted).glob("*.*"))


@pytest.mark.parametrize("obstacle", ["file", "no room"])
def test_a_time_that_cannot_be_noted_is_no_error(accepted: Device, obstacle: str) -> None:
    accepted.ok("run", "--all")
    put_back(watched(accepted), 60)
    if obstacle == "file":
        (accepted.root / "run").touch()
    else:
        accepted.environment["MENDER_RUN_DIR"] = "/proc/none"
    done = accepted.ok("run", "--all")
    assert (done.out, done.err) == ("", "")


AGES = (
    st.none() | st.integers(-200, -30) | st.integers(30, 200)
)  # never so close that the shells take as long


@settings(max_examples=60, deadline=None)
@given(since=AGES, until=AGES, others=st.lists(AGES, min_size=5, max_size=5))
def test_shells_and_python_come_to_the_same_result(
    tmp_path_factory: pytest.TempPathFactory, since: int | None, until: int | None, others: list[int | None]
) -> None:
    root = tmp_path_factory.mktemp("any")
    environment = {name: str(root / name) for name in ("MENDER_CONF_DIR", "MENDER_DATASTORE_DIR")}
    environment |= {"MENDER_RUN_DIR": str(root / "run"), "PATH": os.environ["PATH"]}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        stamps = [Path(idle.directory(), f"all.{end}") for end in ("since", "until")]
        paths = [*map(Path, idle.watched()), *stamps]
        now = time.time()
        for path, age in sorted(zip(paths, [*others, since, until], strict=True), reverse=True):
            if age is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.mkdir(exist_ok=True) if path.name.startswith("MENDER") else path.touch()
        for path, age in zip(paths, [*others, since, until], strict=True):
            if path.exists():
                at = now + (age or 0)
                os.utime(path, (at, at))
        expected = idle.lasts("all", now)
    command = f". {SCRIPT}; idle all"
    codes = {
        subprocess.run([*shell.split(), "-c", command], env=environment, check=False).returncode
        for shell in SHELLS
    }
    assert codes == {0 if expected else 1}


@pytest.fixture
def fork_server() -> Iterator[ForkServer]:
    with ForkServer() as running:
        yield running


def live(
    device: Prompt, server: DevServer, minutes: int, events: dict[int, Callable[[], object]]
) -> list[str]:
    """Return what the server was asked in so many minutes, with a tick in each; with the minute."""
    asked: list[str] = []
    seen = len(server.requests)
    for minute in range(minutes):
        events.get(minute, lambda: None)()
        device.run("run", "--all")
        asked += [f"{minute} {one.method} {one.path.rpartition('/')[2]}" for one in server.requests[seen:]]
        seen = len(server.requests)
        state = device.data / "mender-oneshot.json"
        before = state.stat()
        device.let_time_pass(TICK)
        os.utime(state, ns=(before.st_atime_ns, before.st_mtime_ns))
        put_back([*watched(device), *(notes(device).iterdir() if notes(device).exists() else ())], TICK)
    return asked


@pytest.fixture
def days(tmp_path: Path, fork_server: ForkServer) -> Callable[[str, str], list[str]]:
    """Three hours of a device; returns what the server was asked in which minute."""

    def live_three_hours(name: str, run_directory: str) -> list[str]:
        with DevServer(tmp_path / f"server {name}") as server:
            device = Prompt(tmp_path / name, server, fork_server)
            device.environment["MENDER_RUN_DIR"] = run_directory
            let_in(device, server)
            events: dict[int, Callable[[], object]] = {
                45: lambda: server.faults.add(match="POST */next", status=500, count=3),
                100: lambda: device.configure(UpdatePollIntervalSeconds=600),
                131: lambda: device.ok("check-update"),
                150: device.forget_token,
            }
            return live(device, server, 180, events)

    return live_three_hours


def test_no_step_in_three_hours_comes_later_with_the_time_stamps(
    tmp_path: Path, days: Callable[[str, str], list[str]]
) -> None:
    usual = days("without", "/proc/none")
    assert len(usual) > 10
    assert days("with", str(tmp_path / "with" / "run")) == usual
    assert list((tmp_path / "with" / "run").rglob("all.until"))
