"""The hand-off: verified, announced, locked, started once."""

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from helpers.device import MENDERS, Device, Release, patched_python
from helpers.real_daemon import need
from helpers.seen import final_status

from mender_oneshot.devserver import DevServer

TOLD = (
    "MENDER_DEPLOYMENT_ID",
    "MENDER_ARTIFACT_NAME",
    "MENDER_DATASTORE_DIR",
    "MENDER_ROOTFS_PART_A",
    "MENDER_ROOTFS_PART_B",
)


@pytest.fixture
def downloaded(accepted: Device, release: Release) -> Device:
    """A device with a downloaded artifact and a sub-updater that records its arguments and environment."""
    release()
    accepted.ok("check-update")
    accepted.ok("download")
    accepted.sub_updater('echo "$@" > "$MENDER_DATASTORE_DIR/called"; env > "$MENDER_DATASTORE_DIR/env"\n')
    return accepted


def test_what_the_sub_updater_is_told(downloaded: Device, server: DevServer, tmp_path: Path) -> None:
    downloaded.configure(RootfsPartA="/dev/a", RootfsPartB="/dev/b")
    wanted = downloaded.deployment
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    script = downloaded.scripts / "install"
    script.write_text(script.read_text() + f"echo done > {gate}\n")
    assert downloaded.ok("install", "--json").json["outcome"] == "handed-off"
    gate.read_text()
    assert (downloaded.data / "called").read_text() == f"{downloaded.data}/artifact.mender\n"
    told = dict(
        line.split("=", 1) for line in (downloaded.data / "env").read_text().splitlines() if "=" in line
    )
    assert told["MENDER_DEPLOYMENT_ID"] == wanted
    assert told["MENDER_ARTIFACT_NAME"] == "release-2"
    assert told["MENDER_DATASTORE_DIR"] == str(downloaded.data)
    assert (told["MENDER_ROOTFS_PART_A"], told["MENDER_ROOTFS_PART_B"]) == ("/dev/a", "/dev/b")
    assert (downloaded.data / "update.lock").read_text() == wanted
    assert server.status(wanted) == "installing"
    assert stat.S_IMODE((downloaded.data / "sub-updater.log").stat().st_mode) == 0o600


def test_the_name_is_utf_8_whatever_the_locale(accepted: Device, release: Release, tmp_path: Path) -> None:
    accepted.environment |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    accepted.sub_updater(f'printf %s "$MENDER_ARTIFACT_NAME" > {gate}\n')
    release("ünï-€-☃")
    accepted.ok("run", "--all", "--force")
    assert gate.read_text(encoding="utf-8") == "ünï-€-☃"


def test_once_handed_off_never_again(downloaded: Device, server: DevServer) -> None:
    downloaded.ok("install")
    (downloaded.data / "called").unlink(missing_ok=True)
    done = downloaded.run("install")
    assert done.code == 75
    assert "is being installed" in done.err
    asked = len(server.requests)
    answer = downloaded.ok("run", "--all", "--force", "--json").json
    assert [step["step"] for step in answer["steps"]] in ([], ["send-inventory"])
    assert not [seen for seen in server.requests[asked:] if seen.path.endswith("/next")]
    assert downloaded.run("check-update").code == 75
    assert downloaded.run("download").code == 2


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        (None, 0, "there is no update module for the payload type 'app'"),
        ("#!/bin/sh\n", 0o644, "not executable; change that: chmod +x"),
        ("#!/no/such/interpreter\n", 0o755, "the interpreter /no/such/interpreter, which cannot be used"),
        ("#! /etc/passwd -e\n", 0o755, "/etc/passwd, which cannot be used: it is not executable"),
        ("#!/bin/sh\r\nexit 0\r\n", 0o755, "it has Windows line endings"),
        ("#!/usr/bin/env sh\r\nexit 0\r\n", 0o755, "it has Windows line endings"),
        ("#!\n", 0o755, "names no interpreter"),
        ("\ufeff#!/bin/sh\n", 0o755, "byte order mark"),
        ("", 0o755, "it is empty"),
        ("neither script nor program", 0o755, "does not begin with #!"),
    ],
)
def test_a_sub_updater_that_cannot_start_is_a_reported_failure(
    downloaded: Device, server: DevServer, text: str | None, mode: int, why: str
) -> None:
    wanted = downloaded.deployment
    if text is None:
        (downloaded.scripts / "install").unlink()
    else:
        downloaded.script("install", text, mode)
    done = downloaded.run("install")
    assert done.code == 69
    assert "the update has failed" in done.err
    assert why in done.err
    if text is not None:
        found = downloaded.run("doctor", "--json").json["checks"]
        assert [why in one["message"] for one in found if one["id"] == "sub-updater"] == [True]
    assert not (downloaded.data / "update.lock").exists()
    downloaded.ok("run", "--all")
    assert server.status(wanted) == "failure"
    assert str(downloaded.scripts / "install") in json.dumps(server.log(wanted))
    # The device is free for the next update.
    assert downloaded.ok("check-update", "--json").json["outcome"] == "nothing"


def test_a_damaged_artifact_is_refused(downloaded: Device, server: DevServer) -> None:
    wanted = downloaded.deployment
    artifact = downloaded.data / "artifact.mender"
    content = bytearray(artifact.read_bytes())
    content[content.index(b"0123456789abcdef") + 3] ^= 1
    artifact.write_bytes(content)
    done = downloaded.run("install")
    assert done.code == 65
    assert "checksum" in done.err
    assert not (downloaded.data / "called").exists()
    assert not artifact.exists()
    downloaded.ok("run", "--all")
    assert server.status(wanted) == "failure"
    assert "checksum" in json.dumps(server.log(wanted))


def test_an_artifact_for_another_device_is_refused(
    accepted: Device, server: DevServer, release: Release
) -> None:
    accepted.sub_updater()
    wanted = release(device_types=("board", "other"))
    accepted.ok("check-update")
    accepted.ok("download")
    (accepted.data / "device_type").write_text("device_type=something-else\n")
    done = accepted.run("install")
    assert done.code == 65
    assert "something-else" in done.err
    accepted.ok("run", "--force")
    assert server.status(wanted) == "failure"


def test_an_unsigned_artifact_is_refused_where_a_key_is_configured(
    downloaded: Device, tmp_path: Path
) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "verify.pem").write_bytes(pem)
    downloaded.configure(ArtifactVerifyKey=str(tmp_path / "verify.pem"))
    done = downloaded.run("install")
    assert done.code == 65
    assert "sign" in done.err


def test_a_verify_key_that_is_missing_is_configuration_and_no_failure(downloaded: Device) -> None:
    downloaded.configure(ArtifactVerifyKeys=["/no/such/key.pem"], RetryDownloadCount=2)
    for _ in range(3):
        done = downloaded.run("install")
        assert done.code == 78
        assert "/no/such/key.pem" in done.err
    downloaded.configure(ArtifactVerifyKeys=[])
    downloaded.ok("install")


def test_an_aborted_deployment_is_not_installed(downloaded: Device, server: DevServer) -> None:
    server.abort(downloaded.deployment)
    assert downloaded.ok("install", "--json").json["outcome"] == "withdrawn"
    assert not (downloaded.data / "called").exists()
    assert not (downloaded.data / "update.lock").exists()


@pytest.mark.parametrize(
    "fault",
    [{"status": 400, "body": MENDERS}, {"status": 404}, {"status": 200}, {"retry_after": 600}],
    ids=["refused", "a gateway", "a portal", "too many requests"],
)
def test_what_is_said_of_the_status_does_not_hold_it_up(
    downloaded: Device, server: DevServer, fault: dict[str, Any]
) -> None:
    server.faults.add(match="PUT */status", **fault)
    assert downloaded.ok("install", "--json").json["outcome"] == "handed-off"
    assert bool(downloaded.pauses) == ("retry_after" in fault)


@pytest.mark.parametrize("token", ["none", "at its end"])
def test_neither_does_a_token_that_cannot_be_had(downloaded: Device, server: DevServer, token: str) -> None:
    known = downloaded.token
    if token == "none":
        downloaded.forget_token()
    else:
        downloaded.expire_token()
    server.faults.add(count=None, drop_before=True)
    asked = len(server.requests)
    assert downloaded.ok("install", "--json").json["outcome"] == "handed-off"
    assert not [seen for seen in server.requests[asked:] if known in str(seen.headers)]


def test_a_rejected_token_does_not_verify_the_artifact_again(downloaded: Device, server: DevServer) -> None:
    deployment = downloaded.deployment
    server.revoke_tokens()
    asked = len(server.requests)
    assert downloaded.ok("install", "--json").json["outcome"] == "handed-off"
    assert [seen.status for seen in server.requests[asked:]] == [401, 200, 204]
    assert server.status(deployment) == "installing"
    assert (downloaded.data / "deployment.log").read_text().count("release-2 verified") == 1


@pytest.mark.parametrize(
    "auth", [{"status": 500}, {"status": 401, "body": MENDERS}, {}], ids=["broken", "no", "yes"]
)
def test_a_token_that_stays_rejected_stops_the_installation(
    downloaded: Device, server: DevServer, auth: dict[str, Any]
) -> None:
    if auth:
        server.faults.add(match="POST */auth_requests", **auth)
    server.faults.add(match="PUT */status", count=None, status=401)
    done = downloaded.run("install")
    assert done.code == (75 if auth.get("status") == 500 else 77)
    assert not (downloaded.data / "update.lock").exists()
    assert "install" in downloaded.failures


def test_the_name_is_that_of_what_was_verified(
    accepted: Device, server: DevServer, release: Release, tmp_path: Path
) -> None:
    """The server's word for it is not signed."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    accepted.sub_updater(f'printf %s "$MENDER_ARTIFACT_NAME" > {gate}\n')
    release()
    accepted.ok("check-update")
    accepted.change_deployment(artifact_name="release-99")
    accepted.ok("download")
    accepted.ok("install")
    assert gate.read_text() == "release-2"


# What becomes of an installation that is interrupted.

BAD_BLOCK = """\
import builtins, errno, os
def opening(file, *words, plain=open, **options):
    if isinstance(file, int) and os.readlink(f"/proc/self/fd/{file}").endswith("artifact.mender"):
        raise OSError(errno.EIO, "Input/output error")
    return plain(file, *words, **options)
builtins.open = opening
"""
NO_MEMORY = """\
import builtins, os
def opening(file, *words, plain=open, **options):
    if isinstance(file, int) and os.readlink(f"/proc/self/fd/{file}").endswith("artifact.mender"):
        os.kill(os.getpid(), 9)
    return plain(file, *words, **options)
builtins.open = opening
"""
SLOW_START = """\
import os, signal, subprocess
class Popen(subprocess.Popen):
    def __init__(self, words, **options):
        super().__init__(words, **options)
        if words[0].endswith("/install"):
            os.kill(os.getpid(), signal.SIGALRM)
subprocess.Popen = Popen
"""


NO_START = """
import os, subprocess
class Popen(subprocess.Popen):
    def __init__(self, words, **options):
        if words[0].endswith("{name}"):
            raise OSError({errno}, os.strerror({errno}), words[0])
        super().__init__(words, **options)
subprocess.Popen = Popen
"""
TEMPORARY = ("ETXTBSY", "EAGAIN", "EMFILE", "ENFILE", "ENOMEM", "EINTR", "EIO", "ESTALE", "ENOSPC")
PERMANENT = ("ENOENT", "EACCES", "EPERM", "ENOEXEC", "ELOOP", "ENOTDIR", "EISDIR", "ENAMETOOLONG")


def not_handed_off(device: Device) -> None:
    assert not (device.data / "update.lock").exists()
    assert not device.handed_off


@pytest.mark.parametrize("name", TEMPORARY)
def test_a_start_that_fails_just_now_is_tried_again(downloaded: Device, server: DevServer, name: str) -> None:
    wanted = downloaded.deployment
    downloaded.sub_updater('$ONESHOT report --success && rm "$MENDER_DATASTORE_DIR/update.lock"\n')
    with patched_python(downloaded, NO_START.format(name="/install", errno=getattr(errno, name))):
        done = downloaded.run("install")
    assert (done.code, "temporarily cannot be started" in done.err) == (75, True), done
    not_handed_off(downloaded)
    assert server.status(wanted) == "installing"
    assert downloaded.ok("install", "--json").json["outcome"] == "handed-off"
    server.wait_for(final_status)
    assert server.status(wanted) == "success"


@pytest.mark.parametrize("name", ["sub-updater.log", "sub-updater.lock"])
def test_a_file_of_ours_that_cannot_be_made_is_no_failure_of_the_sub_updater(
    downloaded: Device, server: DevServer, name: str
) -> None:
    wanted = downloaded.deployment
    downloaded.sub_updater('$ONESHOT report --success && rm "$MENDER_DATASTORE_DIR/update.lock"\n')
    path = downloaded.data / name
    path.mkdir()
    done = downloaded.run("install")
    assert (done.code, str(path) in done.err, "remove the directory" in done.err) == (74, True, True), done
    not_handed_off(downloaded)
    path.rmdir()
    downloaded.ok("install")
    server.wait_for(final_status)
    assert server.status(wanted) == "success"


@pytest.mark.parametrize(("name", "attempts"), [*((name, 1) for name in PERMANENT), ("ETXTBSY", 3)])
def test_a_start_that_never_works_has_an_end(
    downloaded: Device, server: DevServer, name: str, attempts: int
) -> None:
    wanted = downloaded.deployment
    downloaded.configure(RetryDownloadCount=3)
    with patched_python(downloaded, NO_START.format(name="/install", errno=getattr(errno, name))):
        codes = [downloaded.run("install").code for _ in range(attempts)]
    assert codes == [75] * (attempts - 1) + [69]
    not_handed_off(downloaded)
    downloaded.ok("run", "--force")
    assert server.status(wanted) == "failure"
    assert "cannot be started" in json.dumps(server.log(wanted))


def test_a_sub_updater_that_is_being_written_is_waited_for(downloaded: Device) -> None:
    with (downloaded.scripts / "install").open("a"):
        done = downloaded.run("run", "--all", "--force")
        assert (done.code, "open for writing" in done.err) == (75, True), done
    assert "Handed" in downloaded.ok("run", "--all", "--force").out


# A systemd of the test's own: `systemd-run` takes down how it was called, then answers as the test wants.
SYSTEMD_RUN = """#!/bin/sh
printf '%s\\n' "$@" > {root}/words
stat -c %a {root}/lib/*.env > {root}/mode
cat {root}/lib/*.env > {root}/private
{answer}
"""


def under_systemd(device: Device, answer: str) -> tuple[str, ...]:
    need("unshare")
    if os.geteuid():
        pytest.skip("a /run of one's own needs root")
    tools = device.root / "tools"
    tools.mkdir()
    (tools / "systemd-run").write_text(SYSTEMD_RUN.format(root=device.root, answer=answer))
    (tools / "systemd-run").chmod(0o755)
    (tools / "systemctl").write_text("#!/bin/sh\n")  # no sub-updater is running
    (tools / "systemctl").chmod(0o755)
    run = f"mount -t tmpfs run /run; mkdir -p /run/systemd/system; PATH={tools}:$PATH"
    return ("unshare", "-m", "sh", "-euc", f'{run}; exec "$@"', "sh")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("exit 0", 0),
        ("echo Failed to connect to bus: Connection refused >&2; exit 1", 75),
        ("echo Failed to start transient service unit: Connection reset by peer >&2; exit 1", 75),
        ("echo Failed to start transient service unit: Resource temporarily unavailable >&2; exit 1", 75),
        ("echo Job for it failed. >&2; exit 1", 75),
        ("exit 1", 75),
        ("kill -9 $$", 75),
    ],
)
def test_systemd_that_cannot_just_now_is_asked_again(downloaded: Device, answer: str, code: int) -> None:
    done = downloaded.run("install", wrapper=under_systemd(downloaded, answer))
    assert done.code == code, done
    assert (downloaded.data / "update.lock").exists() == (code == 0)
    if code:
        not_handed_off(downloaded)
        assert downloaded.ok("install", "--json").json["outcome"] == "handed-off"


def test_nothing_private_is_a_property_of_the_unit(downloaded: Device, server: DevServer) -> None:
    """Every user can read those."""
    downloaded.environment |= {
        "https_proxy": 'http://user:s3c"r\\et$x`@proxy.invalid',
        "no_proxy": "localhost,127.0.0.1",
        "SOME_TOKEN": "t0ken",
        "LD_LIBRARY_PATH": "/nowhere",
    }
    assert downloaded.run("install", wrapper=under_systemd(downloaded, "exit 0")).code == 0
    words = (downloaded.root / "words").read_text()
    assert "s3c" not in words
    assert "t0ken" not in words
    set_ = [word.partition("=")[2].partition("=")[0] for word in words.splitlines() if "--setenv" in word]
    assert sorted(set_) == sorted(
        ["PATH", "MENDER_CONF_DIR", "MENDER_DATA_DIR", "MENDER_SUB_UPDATER_LOG", *TOLD]
    )
    assert (downloaded.root / "mode").read_text() == "600\n"
    private = (downloaded.root / "private").read_text()
    assert private == (
        'https_proxy="http://user:s3c\\"r\\\\et\\$x\\`@proxy.invalid"\nno_proxy="localhost,127.0.0.1"\n'
    )
    assert not list(downloaded.data.glob("*.env"))


def test_a_sub_updater_of_its_own_session_has_the_same_environment(
    downloaded: Device, tmp_path: Path
) -> None:
    downloaded.environment |= {"no_proxy": "localhost,127.0.0.1", "SOME_TOKEN": "t0ken", "LD_BIND_NOW": "1"}
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    downloaded.sub_updater(
        f"env > $MENDER_DATASTORE_DIR/env; umask >> $MENDER_DATASTORE_DIR/env; echo > {gate}\n"
    )
    downloaded.run("install", umask=0o077)
    gate.read_text()
    *told, umask = (downloaded.data / "env").read_text().splitlines()
    shells = {"PWD", "OLDPWD", "SHLVL", "_"}
    assert {line.partition("=")[0] for line in told} - shells == {
        "PATH",
        "no_proxy",
        "MENDER_CONF_DIR",
        "MENDER_DATA_DIR",
        *TOLD,
    }
    assert umask == "0022"


def test_the_first_process_of_a_container_hands_nothing_off(downloaded: Device, server: DevServer) -> None:
    """Its end is the end of all others in there."""
    need("unshare")
    wanted = downloaded.deployment
    done = downloaded.run("install", wrapper=("unshare", "--pid", "--fork"))
    assert (done.code, "process 1" in done.err) == (78, True), done
    not_handed_off(downloaded)
    assert server.status(wanted) == "downloading"
    assert downloaded.ok("install", "--json").json["outcome"] == "handed-off"


def test_what_cannot_be_read_is_fetched_again(downloaded: Device, server: DevServer) -> None:
    with patched_python(downloaded, BAD_BLOCK):
        done = downloaded.run("install")
    assert (done.code, "Input/output error" in done.err) == (74, True)
    downloaded.ok("run", "--all", "--force")
    assert downloaded.handed_off
    assert len([seen for seen in server.requests if seen.origin == "storage"]) == 2


def test_an_installation_that_always_ends_half_way_has_an_end(downloaded: Device, server: DevServer) -> None:
    """As for want of memory."""
    wanted = downloaded.deployment
    downloaded.configure(RetryDownloadCount=3)
    with patched_python(downloaded, NO_MEMORY):
        assert [downloaded.run("install").code for _ in range(3)] == [-9] * 3
        done = downloaded.run("install")
    assert (done.code, "verification was interrupted 3 times" in done.err) == (69, True)
    downloaded.ok("run", "--force")
    assert server.status_history(wanted)[-1] == "failure"


def test_there_is_a_first_attempt_where_no_more_are_allowed(downloaded: Device) -> None:
    downloaded.configure(RetryDownloadCount=0)
    assert downloaded.ok("install", "--json").json["outcome"] == "handed-off"


def test_the_time_is_over_while_the_sub_updater_starts(
    downloaded: Device, server: DevServer, tmp_path: Path
) -> None:
    """It may run, or not: only its own report counts."""
    wanted = downloaded.deployment
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    downloaded.sub_updater(f"read -r go < {gate}; $ONESHOT report --success; echo $? > {gate}\n")
    downloaded.environment["PYTHONWARNINGS"] = (
        "error,ignore::ResourceWarning"  # a child that is not waited for
    )
    with patched_python(downloaded, SLOW_START):
        assert downloaded.run("install").code == 75
    assert server.status(wanted) == "installing"
    assert downloaded.run("install").code == 75
    gate.write_text("go\n")
    assert gate.read_text() == "0\n"
    assert server.status(wanted) == "success"


def test_a_server_out_of_reach_does_not_hold_up_what_is_here(downloaded: Device, server: DevServer) -> None:
    wanted = downloaded.deployment
    server.faults.add(match="PUT */status", drop_before=True)
    downloaded.sub_updater('$ONESHOT report --success && rm "$MENDER_DATASTORE_DIR/update.lock"\n')
    assert downloaded.ok("install", "--json").json["outcome"] == "handed-off"
    server.wait_for(final_status)
    assert server.status(wanted) == "success"


def test_install_without_a_downloaded_artifact_ends_with_2(accepted: Device, release: Release) -> None:
    assert accepted.run("install").code == 2
    release()
    accepted.ok("check-update")
    done = accepted.run("install")
    assert done.code == 2
    assert "run download first" in done.err


def test_a_pause_of_the_status_belongs_to_the_step(downloaded: Device, server: DevServer) -> None:
    server.faults.add(match="PUT */status", retry_after=600)
    downloaded.ok("install")
    assert [pause["step"] for pause in downloaded.state["pauses"]] == ["install"]
