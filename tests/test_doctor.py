"""`doctor` names the one thing that is wrong and the command that fixes it, and changes nothing."""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.clock_and_disk import needs_faketime, set_clock, today, without_clock
from helpers.device import Device, patch_python

from mender_oneshot.devserver import DevServer


def wrong(device: Device) -> dict[str, str]:
    """What `doctor` finds wrong, by name."""
    answer = device.run("doctor", "--json").json
    return {check["name"]: check["message"] for check in answer["checks"] if not check["ok"]}


def files(device: Device) -> dict[str, tuple[int, int, int, bytes]]:
    """Return mode, times and content of everything that a device has."""
    return {
        str(path): (
            found.st_mode, found.st_mtime_ns, found.st_ctime_ns, path.read_bytes() if path.is_file() else b"",
        )
        for path in device.root.rglob("*")
        for found in [path.lstat()]
    }  # fmt: skip


def test_doctor_finds_nothing_wrong_with_a_healthy_device(accepted: Device, server: DevServer) -> None:
    accepted.sub_updater()
    before, asked = files(accepted), len(server.requests)
    done = accepted.ok("doctor")
    assert files(accepted) == before
    lines = done.out.splitlines()
    assert [line for line in lines if not line.startswith("ok      ")] == [
        next(line for line in lines if line.startswith("skipped schedule ")),
        "17 of 18 checks passed, 1 skipped.",
    ]
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
    said = {line[8:23].strip() for line in done.out.splitlines() if line.startswith("FAILED")}
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


@needs_faketime
def test_doctor_reports_a_clock_that_is_two_years_ahead(accepted: Device) -> None:
    accepted.sub_updater()
    set_clock(accepted, today(days=730))
    done = accepted.run("doctor")
    assert "is off by 17520 h 0 min; set it:\n                        date -s @" in done.out


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
    assert line.startswith("FAILED  data directory  Cannot examine the data directory: Stale file handle;")


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


SKIPPED = {"device type", "device key", "verify keys", "server", "authorization", "schedule"}


def test_a_file_that_is_no_json_is_one_finding_and_what_needs_it_is_skipped(
    accepted: Device, server: DevServer
) -> None:
    accepted.sub_updater()
    asked = len(server.requests)
    (accepted.conf / "mender.conf").write_text('{"ServerURL": ')
    done = accepted.run("doctor", "--json")
    assert done.code == 78
    [failed] = [check for check in done.json["checks"] if not check["ok"]]
    assert failed["name"] == "configuration"
    assert "line 1, column 15" in failed["message"]
    assert {check["name"] for check in done.json["checks"] if check["level"] == "skipped"} == SKIPPED
    assert done.json["summary"] == {"passed": 11, "failed": 1, "warnings": 0, "skipped": len(SKIPPED)}
    assert len(server.requests) == asked
    assert accepted.run("doctor").out.splitlines()[-1] == "1 of 18 checks failed, 6 skipped."


def test_all_faults_of_all_files_are_listed_at_once(accepted: Device, server: DevServer) -> None:
    accepted.sub_updater()
    accepted.configure(
        UpdatePollIntervalSeconds="soon",
        SkipVerify=3,
        Servers=[{"ServerURL": "mender"}, {"ServerURL": server.url}],
        ServerURL="ftp://host",
        ServreURL="x",
        HttpsClient={"Certificate": "/no/certificate", "Key": "/no/key"},
        ArtifactVerifyKeys=["/no/first", "/no/second"],
        ServerCertificate="/no/ca",
    )
    (accepted.data / "mender.conf").write_text('{"RetryPollIntervalSeconds": -1, "HttpsClient": []}')
    (accepted.conf / "mender-connect.conf").write_text('{"Terminal": {"Width": "wide"}, "User": 7}')
    done = accepted.run("doctor", "--json")
    faults = [check["message"] for check in done.json["checks"] if not check["ok"]]
    for words in (
        "UpdatePollIntervalSeconds must be a whole number", "SkipVerify must be true or false",
        "RetryPollIntervalSeconds must be a whole number", "HttpsClient must be an object (line 1",
        'The server "mender" is not a URL', 'The server "ftp://host" is not a URL', "did you mean ServerURL",
        "/no/certificate does not exist", "/no/key does not exist", "/no/first does not exist",
        "/no/second does not exist", "ServerCertificate /no/ca does not exist",
        "Terminal.Width must be a whole number", "User must be a string",
    ):  # fmt: skip
        assert len([fault for fault in faults if words in fault]) == 1, words
    assert "Errno" not in done.out + done.err
    assert done.err == ""
    found = {check["name"]: check for check in done.json["checks"]}
    assert found["server"]["level"] == "skipped"
    assert all(found[name]["ok"] for name in ("identity", "inventory", "state", "device key"))


FAULTY: dict[str, tuple[str, str]] = {
    "a wrong type": ('{"UpdatePollIntervalSeconds": "soon"}', "UpdatePollIntervalSeconds"),
    "no URL": ('{"ServerURL": "mender"}', "https://"),
    "half a certificate": ('{"HttpsClient": {"Key": "/x"}}', "Certificate and Key"),
    "an engine": ('{"Security": {"SSLEngine": "pkcs11"}}', "hardware key stores"),
}


@pytest.mark.parametrize("case", FAULTY)
def test_a_faulty_value_is_one_finding(accepted: Device, server: DevServer, case: str) -> None:
    text, words = FAULTY[case]
    asked = len(server.requests)
    (accepted.conf / "mender.conf").write_text(text)
    found = wrong(accepted)
    assert words in found["configuration"]
    assert set(found) == {"configuration"}
    assert len(server.requests) == asked


def test_a_token_that_others_can_read_is_a_warning(accepted: Device) -> None:
    accepted.configure(TenantToken="secret-token")
    (accepted.conf / "mender.conf").chmod(0o644)
    done = accepted.run("doctor")
    assert "warning configuration   Other users can read the TenantToken in " in done.out
    assert f"\n                        chmod 600 {accepted.conf}/mender.conf\n" in done.out
    assert done.out.splitlines()[-1].endswith(", 1 warning, 1 skipped.")
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


def test_a_token_for_another_server_is_named_as_that(accepted: Device, server: DevServer) -> None:
    accepted.configure(ServerURL="https://127.0.0.1:9")
    assert f"but one for {server.url.partition('//')[2]}" in wrong(accepted)["authorization"]


def test_an_expired_token_is_named_as_that(accepted: Device) -> None:
    accepted.expire_token()
    assert "has expired" in wrong(accepted)["authorization"]


def test_a_missing_certificate_is_the_advice_in_both_places(accepted: Device) -> None:
    accepted.configure(ServerCertificate="/no/ca")
    found = wrong(accepted)
    assert found["configuration"] == (
        "ServerCertificate /no/ca does not exist; put the file there, or correct the path."
    )
    assert "ServerCertificate /no/ca does not exist" in found["server"]


SCRIPTS: dict[str, tuple[str | None, int, str, str]] = {
    "missing": (None, 0, "it does not exist", "mender-oneshot setup"),
    "not executable": ("#!/bin/sh\n", 0o644, "it is not executable", "chmod +x {path}"),
    "Windows line ends": ("#!/bin/sh\r\n", 0o755, "Windows line endings", "sed -i 's/\\r$//' {path}"),
    "no interpreter": ("echo mac=1\n", 0o755, "does not begin with #!", ""),
}


@pytest.mark.parametrize("case", SCRIPTS)
def test_the_advice_fits_the_fault_of_a_script(accepted: Device, case: str) -> None:
    text, mode, words, command = SCRIPTS[case]
    path = accepted.scripts / "identity/mender-device-identity"
    path.unlink()
    if text:
        accepted.script("identity/mender-device-identity", text, mode)
    [found] = [one for one in accepted.run("doctor", "--json").json["checks"] if one["id"] == "identity"]
    assert words in found["message"]
    assert (found["command"] or "") == command.format(path=path)


def test_a_last_contact_long_ago_is_a_warning(accepted: Device) -> None:
    accepted.ok("check-update")
    [found] = [one for one in accepted.run("doctor", "--json").json["checks"] if one["id"] == "contact"]
    assert (found["level"], "The last check for an update was" in found["message"]) == ("ok", True)
    accepted.make_hours_old("check-update", 10)
    [found] = [one for one in accepted.run("doctor", "--json").json["checks"] if one["id"] == "contact"]
    assert (found["level"], found["command"]) == ("warning", "mender-oneshot status")


@needs_faketime
def test_a_clock_in_1970_is_a_fault(accepted: Device) -> None:
    set_clock(accepted, without_clock())
    done = accepted.run("doctor")
    assert "FAILED  clock           The clock is at 1970-01-01" in done.out


def test_the_age_of_a_lock_that_was_left_over_is_told(accepted: Device) -> None:
    path = accepted.data / "update.lock"
    path.write_text("11111111-2222-3333-4444-555555555555")
    os.utime(path, (time.time() - 3 * 3600,) * 2)
    accepted.make_hours_old("check-update", 0)
    assert f"{path}, 3 h 0 min old, names deployment" in wrong(accepted)["state"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"RemoteTerminal": true, "ShellCommand": "/no/shell"}', "/no/shell"),
        ('{"RemoteTerminal": true, "User": "no-such-user"}', "there is no user no-such-user"),
    ],
)
def test_a_terminal_that_cannot_start_is_a_fault(accepted: Device, text: str, words: str) -> None:
    (accepted.conf / "mender-connect.conf").write_text(text)
    assert words in wrong(accepted)["terminal"]


def test_a_terminal_without_its_library_is_a_fault(accepted: Device) -> None:
    patch_python(accepted, "import sys\nsys.modules['msgpack'] = None\n")
    assert "terminal" not in wrong(accepted)
    (accepted.conf / "mender-connect.conf").write_text('{"RemoteTerminal": true}')
    assert "python3-msgpack" in wrong(accepted)["terminal"]


def in_a_terminal(device: Device, **environment: str) -> str:
    """Return what `doctor` prints on a terminal."""
    device.environment |= environment
    control, terminal = os.openpty()
    done = subprocess.run(
        [device.python, "-m", "mender_oneshot", "doctor"],
        env=device.env(),
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # EIO at the end
        while piece := os.read(control, 65536):
            shown += piece
    os.close(control)
    assert done.returncode in (0, 77, 78)
    return shown.decode()


def test_colors_are_for_terminals_that_have_them(accepted: Device) -> None:
    accepted.configure(TenantToken="secret-token")
    shown = in_a_terminal(accepted, TERM="xterm")
    for text in ("\033[32mok\033[0m      state", "\033[33mwarning\033[0m ", "\033[31mFAILED\033[0m  auth"):
        assert text in shown
    assert "\033" not in in_a_terminal(accepted, TERM="xterm", NO_COLOR="1")
    assert "\033" not in in_a_terminal(accepted, TERM="dumb", NO_COLOR="")
    assert "\033" not in accepted.run("doctor").out


def test_a_message_of_another_program_adds_no_command(accepted: Device) -> None:
    accepted.fail("download", times=4, why="x: rm -rf /")
    [found] = [one for one in accepted.run("doctor", "--json").json["checks"] if one["id"] == "steps"]
    assert found["message"].endswith("x: rm -rf /")
    assert found["command"] is None


def test_a_check_with_a_fault_and_a_warning_is_counted_as_both(accepted: Device) -> None:
    accepted.sub_updater()
    accepted.configure(TenantToken="secret-token", SkipVerify=1, ServreURL=1)
    (accepted.conf / "mender.conf").chmod(0o644)
    done = accepted.run("doctor", "--json")
    assert len([one for one in done.json["checks"] if one["id"] == "configuration"]) == 3
    assert done.json["summary"] == {"passed": 15, "failed": 2, "warnings": 1, "skipped": 1}
    assert accepted.run("doctor").out.splitlines()[-1] == "2 of 18 checks failed, 1 warning, 1 skipped."


def test_what_needs_a_state_that_cannot_be_read_is_skipped(accepted: Device) -> None:
    (accepted.data / "mender-oneshot.json").write_text("{")
    found = {check["id"]: check["level"] for check in accepted.run("doctor", "--json").json["checks"]}
    assert (found["state"], found["steps"], found["contact"]) == ("failed", "skipped", "skipped")
