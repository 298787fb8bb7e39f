"""`doctor` names the one thing that is wrong, whatever it is, says what to do, and changes nothing."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Device, spoil

from mender_oneshot.devserver import DevServer


def wrong(device: Device) -> dict[str, str]:
    """What `doctor` finds wrong, by name."""
    answer = device.run("doctor", "--json").json
    return {check["name"]: check["message"] for check in answer["checks"] if not check["ok"]}


def files(device: Device) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in device.root.rglob("*") if path.is_file()}


def test_a_healthy_device(accepted: Device, server: DevServer) -> None:
    accepted.sub_updater()
    before, asked = files(accepted), len(server.requests)
    done = accepted.ok("doctor")
    assert files(accepted) == before
    lines = done.out.splitlines()
    assert len(lines) == 12
    assert all(line.startswith("ok     ") for line in lines)
    assert "mac=de:ad:be:ef:00:01" in done.out
    # One question, and the token is not part of it.
    (question,) = server.requests[asked:]
    assert question.headers["Authorization"] is None
    assert question.status == 401


def test_a_device_as_it_comes_from_the_factory(device: Device) -> None:
    for path in (device.data / "device_type", device.conf / "artifact_info"):
        path.unlink()
    (device.scripts / "identity/mender-device-identity").unlink()
    done = device.run("doctor")
    assert done.code == 78
    said = {line[7:22].strip() for line in done.out.splitlines() if line.startswith("WRONG")}
    assert said == {"device type", "artifact", "identity", "sub-updater", "authorization"}


Break = Callable[[Device, DevServer], object]


def no_device_type(device: Device, server: DevServer) -> None:
    (device.data / "device_type").write_text("\n")


def open_key(device: Device, server: DevServer) -> None:
    (device.data / "mender-agent.pem").chmod(0o644)


def bad_key(device: Device, server: DevServer) -> None:
    (device.data / "mender-agent.pem").write_text("not a key")


def bad_state(device: Device, server: DevServer) -> None:
    (device.data / "mender-oneshot.json").write_text("{")


def other_server(device: Device, server: DevServer) -> None:
    # The storage is a web server, too, but no Mender server.
    device.configure(ServerURL=server.storage_url)


CASES: dict[str, tuple[Break, str, str, int]] = {
    "server down": (lambda device, server: server.stop(), "server", "Connection refused", 75),
    "server trouble": (
        lambda device, server: server.faults.add("GET */next", None, status=503), "server", "503", 75,
    ),
    "no CA": (lambda device, server: device.configure(ServerCertificate=""), "server", "certificate", 69),
    "another web server": (other_server, "server", "not a refusal", 76),
    "SkipVerify": (lambda device, server: device.configure(SkipVerify=True), "configuration", "anybody", 78),
    "misspelt key": (
        lambda device, server: device.configure(ServreURL="x"), "configuration", "did you mean ServerURL", 78,
    ),
    "no device type": (no_device_type, "device type", "device_type=", 78),
    "no artifact": (
        lambda device, server: (device.conf / "artifact_info").unlink(), "artifact", "artifact_name=", 78,
    ),
    "identity script": (
        lambda device, server: device.script("identity/mender-device-identity", "#!/bin/sh\nexit 3\n"),
        "identity", "ended with 3", 78,
    ),
    "key for all to read": (open_key, "device key", "chmod 600", 78),
    "damaged key": (bad_key, "device key", "is not PEM", 78),
    "verify key": (
        lambda device, server: device.configure(ArtifactVerifyKey="/nonexistent"),
        "verify keys", "put the file there", 78,
    ),
    "sub-updater": (
        lambda device, server: (device.scripts / "install").chmod(0o644), "sub-updater", "not executable", 78,
    ),
    "state": (bad_state, "state", "starts afresh", 74),
    "not accepted": (
        lambda device, server: device.alter_state(token=None), "authorization", "mender-oneshot auth", 77,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_one_thing_that_is_wrong(accepted: Device, server: DevServer, case: str) -> None:
    ruin, name, words, code = CASES[case]
    accepted.sub_updater()
    ruin(accepted, server)
    before = files(accepted)
    found = wrong(accepted)
    assert words in found[name]
    expected = {name, "authorization"} if case in ("state", "another web server", "damaged key") else {name}
    assert set(found) == expected
    assert accepted.run("doctor").code == code
    assert files(accepted) == before


def test_no_server_at_all(tmp_path: Path, device: Device) -> None:
    device.settings = {}
    device.configure()
    device.sub_updater()
    assert "ServerURL" in wrong(device)["configuration"]
    assert device.run("doctor").code == 78


def test_a_wrong_clock(accepted: Device) -> None:
    accepted.sub_updater()
    if not os.path.exists("/usr/bin/faketime"):
        pytest.skip("faketime is not installed")
    done = accepted.run("doctor", wrapper=("faketime", "-f", "+2y"))
    assert "set the clock" in done.out


def test_a_disk_that_does_not_even_say_how_full_it_is(accepted: Device) -> None:
    accepted.sub_updater()
    spoil(
        accepted,
        "import errno, os\n"
        "def statvfs(path):\n"
        "    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)\n"
        "os.statvfs = statvfs\n",
    )
    done = accepted.run("doctor")
    assert done.code == 74
    (line,) = [line for line in done.out.splitlines() if line.startswith("WRONG")]
    assert line.startswith("WRONG  data directory  Cannot examine the data directory: Stale file handle;")


def test_a_script_that_hangs_does_not_hold_it(accepted: Device) -> None:
    accepted.script("identity/mender-device-identity", "#!/bin/sh\nexec sleep 1000\n")
    done = accepted.run("doctor", "--max-runtime", "3")
    assert done.code == 75
    assert "time limit" in done.out + done.err
