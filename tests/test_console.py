"""What a person at a terminal sees of waits and downloads; without a terminal, there is none of it."""

import fcntl
import signal
from collections.abc import Iterator

import pytest
from helpers.device import Device, Release, newest_only
from helpers.screen import on_screen
from helpers.silent_server import silent_after
from hypothesis import given
from hypothesis import strategies as st

from mender_oneshot.devserver import DevServer
from mender_oneshot.progress import Rate, line

STORAGE = "GET /storage/*"
MEGABYTE = 1_000_000


@pytest.fixture
def silent(device: Device) -> Iterator[Device]:
    """A device whose server accepts connections and then stays silent."""
    with silent_after(b"") as port:
        device.configure(ServerURL=f"https://127.0.0.1:{port}")
        yield device


@newest_only
def test_a_wait_for_the_server_is_named_and_removed(silent: Device) -> None:
    notice = f"Asking {silent.settings['ServerURL'].removeprefix('https://')} ..."
    with on_screen(silent, "auth") as screen:
        screen.until(f"\r{notice}")
        assert screen.press_ctrl_c() == 130
    rest = screen.shown.partition(notice)[2].replace("^C", "")
    assert rest.startswith("\r" + " " * len(notice))
    assert rest.strip() == ""


@newest_only
def test_a_notice_is_removed_before_the_error(silent: Device) -> None:
    with on_screen(silent, "auth", "--max-runtime", "6") as screen:
        screen.until("Asking")
        assert screen.end() == 75
    assert screen.shown.rpartition("\r")[2].startswith("The time limit of 6 s was reached")


@newest_only
def test_a_lock_that_another_invocation_holds_is_named(accepted: Device) -> None:
    with open(accepted.data / "mender-oneshot.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with on_screen(accepted, "auth") as screen:
            screen.until("Waiting for another mender-oneshot to end ...")
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert screen.end() == 0
    assert screen.shown.rpartition("\r")[2] == "The device is authorized; its token is still valid.\n"


@newest_only
def test_without_a_terminal_no_wait_is_named(silent: Device) -> None:
    done = silent.run("auth", "--max-runtime", "6")
    assert done.code == 75
    assert len(done.err.splitlines()) == 1
    assert "\r" not in done.err


@pytest.fixture
def slow(accepted: Device, server: DevServer, release: Release) -> Device:
    """A device with a download of 3 MB that takes its time."""
    accepted.sub_updater()
    release(size=3 * MEGABYTE)
    accepted.ok("check-update")
    server.faults.add(match=STORAGE, slow=300_000.0)
    return accepted


@newest_only
def test_ctrl_c_ends_the_line_of_a_download(slow: Device) -> None:
    with on_screen(slow, "download") as screen:
        screen.until("/s, ")
        assert screen.press_ctrl_c() == 130
    *_, before, last, end = screen.shown.split("\n")
    end = end.replace("^C", "")
    assert before.replace("^C", "").rstrip().endswith(" left")
    assert (last, end) == (
        "warning: Interrupted; what was downloaded is kept, and the next run will resume.",
        "",
    )


@newest_only
def test_a_kill_ends_the_line_of_a_download(slow: Device) -> None:
    with on_screen(slow, "download") as screen:
        screen.until("/s, ")
        screen.process.terminate()
        assert screen.end() == -signal.SIGTERM
    assert screen.shown.endswith(" left\n")


@newest_only
def test_an_error_follows_the_line_of_a_download(
    accepted: Device, server: DevServer, release: Release
) -> None:
    accepted.sub_updater()
    release(size=3 * MEGABYTE)
    accepted.ok("check-update")
    server.faults.add(match=STORAGE, cut_after=2 * MEGABYTE)
    with on_screen(accepted, "download", columns=60) as screen:
        assert screen.end() == 75
    *lines, error, end = screen.shown.split("\n")
    assert "Downloading " in lines[0]
    assert all(len(piece) < 60 for piece in lines[0].split("\r"))
    assert error.startswith("At 2.0 MB of 3.0 MB: ")
    assert end == ""


@newest_only
def test_a_download_ends_with_a_whole_line(accepted: Device, release: Release) -> None:
    accepted.sub_updater()
    release(size=3 * MEGABYTE)
    accepted.ok("check-update")
    with on_screen(accepted, "download") as screen:
        assert screen.end() == 0
    first, second, end = screen.shown.split("\n")
    assert first.rpartition("\r")[2].startswith("Downloading 100 %  [##############################]  3.0 MB")
    assert (second, end) == ("Downloaded release-2, 3.0 MB.", "")


@pytest.mark.parametrize(
    ("done", "size", "rate", "width", "wanted"),
    [
        (18_000_000, 60_000_000, 3e6, 100,
         "Downloading  30 %  [#########.....................]  18.0 MB of 60.0 MB, 3.0 MB/s, 14 s left"),
        (18_000_000, 60_000_000, 0, 100,
         "Downloading  30 %  [#########.....................]  18.0 MB of 60.0 MB"),
        (18_000_000, 60_000_000, 3e6, 65, "Downloading  30 %  18.0 MB of 60.0 MB, 3.0 MB/s, 14 s left"),
        (18_000_000, 60_000_000, 3e6, 40, "Downloading  30 %  18.0 MB of 60.0 MB"),
        (500, 2_000, 100, 74, "Downloading  25 %  [##......]  500 bytes of 2.0 kB, 100 bytes/s, 15 s left"),
        (2_000, 2_000, 100, 100,
         "Downloading 100 %  [##############################]  2.0 kB of 2.0 kB, 100 bytes/s"),
        (40_000, -1, 2_000, 100, "Downloading  40.0 kB, 2.0 kB/s"),
    ],
)  # fmt: skip
def test_the_line_of_a_download(done: int, size: int, rate: float, width: int, wanted: str) -> None:
    assert line(done, size, rate, width) == wanted


@given(st.integers(0, 10**13), st.integers(-1, 10**13), st.floats(0, 1e12), st.integers(60, 300))
def test_a_line_fits_into_the_terminal(done: int, size: int, rate: float, width: int) -> None:
    shown = line(done, size, rate, width)
    assert len(shown) <= width
    assert shown.startswith("Downloading ")


def test_the_rate_is_the_present_one_after_a_resume_and_after_a_stall() -> None:
    rate = Rate()
    assert rate.add(100.0, 40_000_000) == 0  # an earlier invocation brought them
    assert rate.add(101.0, 43_000_000) == 3_000_000
    for second in range(2, 10):
        rate.add(100.0 + second, 43_000_000 + second * 1_000_000)
    assert rate.add(110.0, 53_000_000) == 1_000_000
    assert rate.add(130.0, 53_000_100) < 100_000
    assert rate.add(131.0, 1_000) == 0  # it has started over
