"""`doctor` names the one thing that is wrong, whatever it is, says what to do, and changes nothing."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.device import Device, patch_python

from mender_oneshot.devserver import DevServer


def wrong(device: Device) -> dict[str, str]:
    """What `doctor` finds wrong, by name."""
    answer = device.run("doctor", "--json").json
    return {check["name"]: check["message"] for check in answer["checks"] if not check["ok"]}


def files(device: Device) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in device.root.rglob("*") if path.is_file()}


def test_doctor_finds_nothing_wrong_with_a_healthy_device(accepted: Device, server: DevServer) -> None:
    accepted.sub_updater()
    before, asked = files(accepted), len(server.requests)
    done = accepted.ok("doctor")
    assert files(accepted) == before
    lines = done.out.splitlines()
    assert len(lines) == 14
    assert all(line.startswith("ok     ") for line in lines)
    assert "mac=de:ad:be:ef:00:01" in done.out
    # One question, and the token is not part of it.
    (question,) = server.requests[asked:]
    assert question.headers["Authorization"] is None
    assert question.status == 401


def test_doctor_lists_all_that_a_fresh_device_lacks(device: Device) -> None:
    for path in (device.data / "device_type", device.conf / "artifact_info"):
        path.unlink()
    (device.scripts / "identity/mender-device-identity").unlink()
    done = device.run("doctor")
    assert done.code == 78
    said = {line[7:22].strip() for line in done.out.splitlines() if line.startswith("FAILED")}
    assert said == {"device type", "artifact", "identity", "authorization"}


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
    "another web server": (other_server, "server", "check ServerURL", 69),
    "SkipVerify": (lambda device, server: device.configure(SkipVerify=True), "configuration", "anyone", 78),
    "misspelt key": (
        lambda device, server: device.configure(ServreURL="x"), "configuration", "did you mean ServerURL", 78,
    ),
    "no device type": (no_device_type, "device type", "device_type=", 78),
    "no artifact": (
        lambda device, server: (device.conf / "artifact_info").unlink(), "artifact", "artifact_name=", 78,
    ),
    "identity script": (
        lambda device, server: device.script("identity/mender-device-identity", "#!/bin/sh\nexit 3\n"),
        "identity", "exited with status 3", 78,
    ),
    "key for all to read": (open_key, "device key", "chmod 600", 78),
    "corrupt key": (bad_key, "device key", "is not PEM", 78),
    "verify key": (
        lambda device, server: device.configure(ArtifactVerifyKey="/nonexistent"),
        "verify keys", "put the file there", 78,
    ),
    "sub-updater": (
        lambda device, server: (device.scripts / "install").chmod(0o644), "sub-updater", "not executable", 78,
    ),
    "state": (bad_state, "state", "start over", 74),
    "not accepted": (
        lambda device, server: device.forget_token(), "authorization", "mender-oneshot auth", 77,
    ),
}  # fmt: skip


def writable(name: str) -> Break:
    """Let every user write to a file or directory of the device."""

    def ruin(device: Device, server: DevServer) -> None:
        path = device.root / name
        path.chmod(path.stat().st_mode | 0o002)

    return ruin


def of_another_user(name: str) -> Break:
    """Give a file or directory of the device to another user."""

    def ruin(device: Device, server: DevServer) -> None:
        if os.geteuid():
            pytest.skip("only root can give files away")
        os.chown(device.root / name, 12345, -1)

    return ruin


def failing(device: Device, server: DevServer) -> None:
    why = "No answer from storage.example: it has no address."
    device.fail("download", times=4, why=why)
    device.fail("auth")


def left_lock(device: Device, server: DevServer) -> None:
    (device.data / "update.lock").write_text("11111111-2222-3333-4444-555555555555")


def adopted_lock(device: Device, server: DevServer) -> None:
    left_lock(device, server)
    device.ok("run")


CASES |= {
    **{
        f"{name} for all to write": (writable(name), "permissions", "chmod go-w", 78)
        for name in (
            *("lib", "etc", "share", "share/identity", "share/inventory", "etc/mender.conf", "share/install"),
            *("etc/artifact_info", "lib/device_type", "share/identity/mender-device-identity"),
        )
    },
    **{
        f"{name} of another user": (of_another_user(name), "permissions", "belongs to user 12345", 78)
        for name in ("lib", "etc/mender.conf", "share/install", "share/identity/mender-device-identity")
    },
    "step that fails": (
        failing, "steps", "download has failed 4 times in a row: No answer from storage.example", 75,
    ),
    "lock of an unknown deployment": (left_lock, "state", "mender-oneshot report --failure", 78),
    "lock that a run has taken over": (adopted_lock, "state", "mender-oneshot report --failure", 78),
    "empty lock": (
        lambda device, server: (device.data / "update.lock").touch(),
        "state", "names deployment (unknown)", 78,
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
    expected = {name, "authorization"} if case in ("state", "another web server", "corrupt key") else {name}
    assert set(found) == expected
    assert accepted.run("doctor").code == code
    assert files(accepted) == before


def test_doctor_without_a_server_names_the_setting(tmp_path: Path, device: Device) -> None:
    device.settings = {}
    device.configure()
    device.sub_updater()
    assert "ServerURL" in wrong(device)["configuration"]
    assert device.run("doctor").code == 78


def test_doctor_reports_a_clock_that_is_two_years_ahead(accepted: Device) -> None:
    accepted.sub_updater()
    if not os.path.exists("/usr/bin/faketime"):
        pytest.skip("faketime is not installed")
    done = accepted.run("doctor", wrapper=("faketime", "-f", "+2y"))
    assert "set the clock" in done.out


def test_a_disk_that_does_not_even_say_how_full_it_is(accepted: Device) -> None:
    accepted.sub_updater()
    patch_python(
        accepted,
        "import errno, os\n"
        "def statvfs(path):\n"
        "    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)\n"
        "os.statvfs = statvfs\n",
    )
    done = accepted.run("doctor")
    assert done.code == 74
    (line,) = [line for line in done.out.splitlines() if line.startswith("FAILED")]
    assert line.startswith("FAILED data directory  Cannot examine the data directory: Stale file handle;")


def test_a_script_that_hangs_does_not_hold_it(accepted: Device) -> None:
    accepted.script("identity/mender-device-identity", "#!/bin/sh\nexec sleep 1000\n")
    done = accepted.run("doctor", "--max-runtime", "3")
    assert done.code == 75
    assert "time limit" in done.out + done.err


@pytest.mark.parametrize("name", ["mender-oneshot.json", "mender-oneshot.lock", ""])
def test_what_even_root_cannot_write(accepted: Device, name: str) -> None:
    """As `run` finds it: the immutable attribute."""
    accepted.sub_updater()
    path = accepted.data / name
    if os.geteuid() or subprocess.run(["chattr", "+i", path], capture_output=True, check=False).returncode:
        pytest.skip("chattr +i does not work here")
    try:
        found = wrong(accepted)
        assert accepted.run("check-update").code == 74
    finally:
        subprocess.run(["chattr", "-i", path], check=True)
    assert set(found) == {"data directory"}
    assert f"remove it: chattr -ia {accepted.data}" in found["data directory"]


BROKEN: dict[str, tuple[str, str]] = {
    "no JSON": ('{"ServerURL": ', "line 1"),
    "a wrong type": ('{"UpdatePollIntervalSeconds": "soon"}', "UpdatePollIntervalSeconds"),
    "no URL": ('{"ServerURL": "mender"}', "https://"),
    "half a certificate": ('{"HttpsClient": {"Key": "/x"}}', "Certificate and Key"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_configuration_is_one_finding(accepted: Device, server: DevServer, case: str) -> None:
    text, words = BROKEN[case]
    asked = len(server.requests)
    (accepted.conf / "mender.conf").write_text(text)
    done = accepted.run("doctor", "--json")
    found = {check["name"]: check for check in done.json["checks"]}
    assert done.code == 78
    assert words in found["configuration"]["message"]
    assert {name for name, check in found.items() if not check["ok"]} == {"configuration"}
    assert {"identity", "inventory", "artifact", "state", "permissions"} <= set(found)
    assert len(server.requests) == asked


def test_a_token_that_others_can_read_is_remarked(accepted: Device) -> None:
    accepted.configure(TenantToken="secret-token")
    (accepted.conf / "mender.conf").chmod(0o644)
    done = accepted.run("doctor")
    assert f"to prevent that: chmod 600 {accepted.conf}/mender.conf" in done.out
    assert "secret-token" not in done.out
    (accepted.conf / "mender.conf").chmod(0o600)
    assert "chmod 600" not in accepted.run("doctor").out


@pytest.mark.parametrize("there", [True, False])
def test_the_storage_of_a_deployment_in_hand(
    accepted: Device, server: DevServer, release: Callable[..., str], there: bool
) -> None:
    accepted.sub_updater()
    release()
    accepted.ok("check-update")
    if not there:
        accepted.change_link("https://127.0.0.1:9/secret-path?signature=secret")
    asked = len(server.requests)
    done = accepted.run("doctor", "--json")
    (found,) = [check for check in done.json["checks"] if check["name"] == "storage"]
    assert found["ok"] is there
    assert done.code == (0 if there else 75)
    assert "artifact storage" in found["message"]
    assert "secret" not in done.out
    assert not [one for one in server.requests[asked:] if "/download" in one.path or "signature" in one.path]
