"""Field stories of wrong clocks: no battery, a slip of the finger, NTP that comes late, jumps both ways.

The device's clock is libfaketime's; the server's is right, unless a story one_sentence otherwise.
"""

import shlex
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from helpers.clock_and_disk import (
    Traffic,
    far_ahead,
    needs_faketime,
    set_clock,
    set_clock_from,
    today,
    without_clock,
    write_clock,
)
from helpers.device import Device, Release, newest_only, one_sentence
from helpers.seen import final_status

from mender_oneshot.devserver import DevServer

pytestmark = [pytest.mark.real, needs_faketime]

Clock = Callable[..., datetime]


@pytest.fixture
def device(tmp_path: Path, server: DevServer, python: str) -> Device:
    """A fresh device whose invocations are processes of their own, so that libfaketime is loaded."""
    made = Device(tmp_path / "device", python)
    made.use_server(server)
    return made


LIVES: dict[str, list[datetime]] = {
    "it stands in 1970": [without_clock(minutes=m) for m in (0, 2, 60, 65, 70, 80)],
    "it stands in 2099": [far_ahead(minutes=m) for m in (0, 2, 60, 65, 70, 80)],
    "1970 at boot, then NTP": [without_clock(), without_clock(minutes=2)]
    + [today(minutes=m) for m in (0, 5, 10, 15)],
    "it jumps": [today(days=d) for d in (0, 5, -3, 9, -30, 1)],
}


# The library that warns of old dates, and the token, know 1970 in both worlds; the rest is ours.
@pytest.mark.parametrize(
    ("python", "clock"),
    [("newest", clock) for clock in LIVES] + [("debian", "it stands in 1970")],
    indirect=["python"],
)
def test_a_whole_life_with_a_wrong_clock(
    device: Device, server: DevServer, release: Release, tmp_path: Path, clock: str
) -> None:
    device.sub_updater()
    times = iter(LIVES[clock])

    def tick(*words: str, code: int = 0) -> None:
        set_clock(device, next(times))
        done = device.run(*words)
        assert done.code == code, done

    tick("run", code=77)
    server.accept()
    tick("run", "--all")
    assert server.device().attributes["artifact_name"] == "release-1"

    deployment = release(size=300_000)
    server.faults.add(match="GET /storage/*", cut_after=100_000)
    tick("run", "--all", code=75)
    tick("run", "--all")
    whole = (tmp_path / "release-2.mender").read_bytes()
    assert (device.data / "artifact.mender").read_bytes() == whole
    assert sum(seen.sent for seen in server.requests if seen.origin == "storage") == len(whole)

    tick("report", "--success")
    (device.data / "update.lock").unlink()
    (device.conf / "artifact_info").write_text("artifact_name=release-2\n")
    tick("run", "--all")
    assert server.status_history(deployment)[-3:] == ["downloading", "installing", "success"]
    assert not (device.data / "artifact.mender").exists()

    asked = Traffic(server)
    device.ok("run", "--all")
    assert asked.new() == []
    assert not [seen for seen in server.requests if seen.status == 401 and "Authorization" in seen.headers]


@newest_only
def test_ntp_comes_in_the_middle_of_a_download(
    accepted: Device, server: DevServer, release: Release, tmp_path: Path
) -> None:
    """56 years go by while the artifact comes in: neither the time limit nor the link takes offence."""
    clock = tmp_path / "clock"
    write_clock(clock, without_clock())
    set_clock_from(accepted, clock)
    release(size=300_000)
    server.faults.add(match="GET /storage/*", stall_after=100_000)
    process = accepted.start("run", "--all")
    server.faults.wait_for_stall()
    write_clock(clock, today())
    accepted.sub_updater()
    server.faults.release()
    _, complaint = process.communicate(timeout=30)
    assert (process.returncode, complaint) == (0, "")
    assert (accepted.data / "artifact.mender").read_bytes() == (tmp_path / "release-2.mender").read_bytes()


@newest_only
def test_each_jump_asks_once_and_blocks_nothing(accepted: Device, server: DevServer) -> None:
    """A state written in 2099 is read in 2026, and the reverse: due at once, and then not again."""
    asked = Traffic(server)
    for now in (far_ahead(), today(), without_clock(), today(days=5)):
        set_clock(accepted, now)
        accepted.ok("run", "--all")
        new = asked.new()
        assert new.count("next") in (1, 2), now  # 2: where the newer form of the question is tried first
        assert new.count("attributes") <= 1, now
        assert new.count("auth_requests") <= 1, now
        set_clock(accepted, now + timedelta(minutes=29))
        accepted.ok("run", "--all")
        assert asked.new() == []
    assert not [seen for seen in server.requests if seen.status == 401 and "Authorization" in seen.headers]


@newest_only
def test_a_jump_after_a_check_without_news_asks_once(accepted: Device, server: DevServer) -> None:
    """The time of such a check is in /run only; a clock that was set back must not block the next one."""
    asked = Traffic(server)
    jumps = (today(), today(hours=1), today(), without_clock(), without_clock(hours=1), today(hours=2))
    for now in jumps:
        set_clock(accepted, now)
        accepted.ok("run", "--only", "update", "--all")
        assert "next" in asked.new(), now
        accepted.ok("run", "--only", "update", "--all")
        assert asked.new() == [], now


@newest_only
def test_each_jump_tries_a_server_that_is_down_once(accepted: Device, server: DevServer) -> None:
    """What keeps a device from asking in a storm is a time stamp too; a jump voids it once, not for good."""
    server.faults.add(count=None, status=503)
    asked = Traffic(server)
    for now in (far_ahead(), today(), without_clock(), today()):
        set_clock(accepted, now)
        assert accepted.run("run").code == 75
        assert len(asked.new()) == 1
        set_clock(accepted, now + timedelta(seconds=50))
        accepted.ok("run")
        assert asked.new() == []


@newest_only
@pytest.mark.parametrize("clock", [without_clock, far_ahead])
def test_a_pause_until_a_date_is_measured_by_the_servers_clock(
    accepted: Device, server: DevServer, clock: Clock
) -> None:
    set_clock(accepted, clock())
    until = datetime.now(UTC) + timedelta(minutes=10)
    server.faults.add(retry_after=format_datetime(until, usegmt=True))
    assert accepted.run("run").code == 75
    assert 590 <= accepted.pauses[0] <= 600
    asked = Traffic(server)
    one_sentence(accepted.run("check-update"), 75, "asked for a pause")
    set_clock(accepted, clock(minutes=9))
    accepted.ok("run", "--force")
    assert asked.new() == []
    set_clock(accepted, clock(minutes=11))
    accepted.ok("run", "--all")
    assert "next" in asked.new()


@newest_only
@pytest.mark.parametrize("clock", [without_clock, far_ahead])
def test_a_token_is_used_as_long_as_it_is_good_and_not_longer(
    tmp_path: Path, python: str, clock: Clock
) -> None:
    """The clock is wrong but runs: a token that is a week old is not sent."""
    passed = 0.0
    with DevServer(tmp_path / "server", accept_all=True, clock=lambda: time.time() + passed) as server:
        device = Device(tmp_path / "device", python)
        device.configure(ServerURL=server.url, ServerCertificate=str(server.ca))
        asked = Traffic(server)
        set_clock(device, clock())
        device.ok("run", "--all")
        assert asked.new().count("auth_requests") == 1
        passed = 6.9 * 86400
        set_clock(device, clock(days=6.9))
        device.ok("run", "--all")
        assert asked.new().count("auth_requests") == 0
        passed = 8.0 * 86400
        set_clock(device, clock(days=8))
        device.ok("run", "--all")
        assert asked.new().count("auth_requests") == 1
        assert not [seen for seen in server.requests if seen.status == 401]


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[DevServer]:
    """A server whose certificate is good for this year and the next, as real ones are."""
    with DevServer(
        tmp_path / "strict", accept_all=True, certificate_validity=(today(days=-30), today(days=400))
    ) as server:
        yield server


@pytest.mark.parametrize(
    ("clock", "code", "words"),
    [
        (without_clock, 75, "is not valid yet by this device's clock (1970-01-01 "),
        (far_ahead, 69, "has expired by this device's clock (2099-06-01 "),
    ],
    ids=["behind", "ahead"],
)
def test_a_clock_outside_the_certificates_validity_is_named_and_a_corrected_one_recovers(
    tmp_path: Path, strict: DevServer, python: str, clock: Clock, code: int, words: str
) -> None:
    device = Device(tmp_path / "device", python)
    device.configure(ServerURL=strict.url, ServerCertificate=str(strict.ca))
    set_clock(device, clock())
    one_sentence(device.run("run"), code, words, "set the clock")
    device.ok("run")
    assert device.failures["auth"] == 1
    assert not strict.requests
    set_clock(device, today())
    device.ok("run", "--all")
    assert len(strict.devices) == 1
    assert not device.failures


@newest_only
def test_a_jump_during_the_installation_neither_gives_up_nor_waits_for_ever(
    accepted: Device, server: DevServer, release: Release
) -> None:
    """How long the sub-updater may take is counted by the uptime, which no NTP can change."""
    deployment = release()
    accepted.sub_updater()
    set_clock(accepted, without_clock())
    accepted.ok("run", "--all")
    for now in (far_ahead(), today()):
        set_clock(accepted, now)
        accepted.ok("run")
        assert server.status(deployment) == "installing"
        assert (accepted.data / "update.lock").exists()
        assert accepted.handed_off == deployment
    # Four hours pass by the uptime; by the clock, none.
    accepted.age_hand_off(14400)
    answer = accepted.ok("run", "--all", "--json").json
    assert [step["outcome"] for step in answer["steps"]][:2] == ["gave-up", "delivered"]
    assert server.status(deployment) == "failure"


@newest_only
def test_the_log_of_an_update_across_a_jump_is_taken_by_the_server(
    accepted: Device, server: DevServer, release: Release
) -> None:
    deployment = release()
    set_clock(accepted, without_clock())
    accepted.ok("check-update")
    accepted.ok("download")
    set_clock(accepted, far_ahead())
    # The sub-updater gets nothing of our environment, where the clock of the device is.
    clock = " ".join(f"{name}={shlex.quote(value)}" for name, value in accepted.environment.items())
    accepted.sub_updater(f"export {clock}\necho no space on /dev/b\n$ONESHOT report --failure\n")
    accepted.ok("install")
    server.wait_for(lambda seen: seen.path.endswith("/log"))
    log = server.log(deployment) or []
    assert {entry["timestamp"][:4] for entry in log} == {"1970", "2099"}
    assert log[-1]["message"] == "no space on /dev/b"
    assert len([seen for seen in server.requests if final_status(seen)]) == 1
