"""The hand-off: verified, announced, locked, started once."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import MENDERS, Device, spoilt
from test_life import final_status

from mender_oneshot.devserver import DevServer

Release = Callable[..., str]


@pytest.fixture
def downloaded(accepted: Device, release: Release) -> Device:
    """A device with an artifact downloaded and a sub-updater that only notes what it was told."""
    release()
    accepted.ok("check-update")
    accepted.ok("download")
    accepted.sub_updater('echo "$@" > "$MENDER_DATASTORE_DIR/called"; env > "$MENDER_DATASTORE_DIR/env"\n')
    return accepted


def deployment(device: Device) -> str:
    found: str = device.state["deployment"]["id"]
    return found


def test_what_the_sub_updater_is_told(downloaded: Device, server: DevServer, tmp_path: Path) -> None:
    downloaded.configure(RootfsPartA="/dev/a", RootfsPartB="/dev/b")
    wanted = deployment(downloaded)
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
    assert "in the sub-updater's hands" in done.err
    asked = len(server.requests)
    answer = downloaded.ok("run", "--all", "--force", "--json").json
    assert [step["step"] for step in answer["steps"]] in ([], ["send-inventory"])
    assert not [seen for seen in server.requests[asked:] if seen.path.endswith("/next")]
    assert downloaded.run("check-update").code == 75
    assert downloaded.run("download").code == 2


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        (None, 0),
        ("#!/bin/sh\n", 0o644),
        ("#!/no/such/interpreter\n", 0o755),
        ("neither script nor program", 0o755),
    ],
    ids=["missing", "not executable", "no interpreter", "no program"],
)
def test_a_sub_updater_that_cannot_start_is_a_reported_failure(
    downloaded: Device, server: DevServer, text: str | None, mode: int
) -> None:
    wanted = deployment(downloaded)
    if text is None:
        (downloaded.scripts / "install").unlink()
    else:
        downloaded.script("install", text, mode)
    done = downloaded.run("install")
    assert done.code == 69
    assert "the update has failed" in done.err
    assert not (downloaded.data / "update.lock").exists()
    downloaded.ok("run", "--all")
    assert server.status(wanted) == "failure"
    assert str(downloaded.scripts / "install") in json.dumps(server.log(wanted))
    # The device is free for the next update.
    assert downloaded.ok("check-update", "--json").json["outcome"] == "nothing"


def test_a_damaged_artifact_is_refused(downloaded: Device, server: DevServer) -> None:
    wanted = deployment(downloaded)
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
    downloaded.configure(ArtifactVerifyKeys=["/no/such/key.pem"])
    done = downloaded.run("install")
    assert done.code == 78
    assert "/no/such/key.pem" in done.err
    downloaded.configure(ArtifactVerifyKeys=[])
    downloaded.ok("install")


def test_an_aborted_deployment_is_not_installed(downloaded: Device, server: DevServer) -> None:
    server.abort(deployment(downloaded))
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
    assert ("pauses" in downloaded.state) == ("retry_after" in fault)


@pytest.mark.parametrize("token", ["none", "at its end"])
def test_neither_does_a_token_that_cannot_be_had(downloaded: Device, server: DevServer, token: str) -> None:
    known = downloaded.state["token"]
    ended = known | {"at": 1.0, "expires": 2.0, "lifetime": 1.0}
    downloaded.alter_state(token=None if token == "none" else ended)
    server.faults.add(count=None, drop_before=True)
    asked = len(server.requests)
    assert downloaded.ok("install", "--json").json["outcome"] == "handed-off"
    assert not [seen for seen in server.requests[asked:] if known["jwt"] in str(seen.headers)]


def test_the_name_is_that_of_what_was_verified(
    accepted: Device, server: DevServer, release: Release, tmp_path: Path
) -> None:
    """The server's word for it is not signed."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    accepted.sub_updater(f'printf %s "$MENDER_ARTIFACT_NAME" > {gate}\n')
    release()
    accepted.ok("check-update")
    accepted.alter_state(deployment=accepted.state["deployment"] | {"artifact_name": "release-99"})
    accepted.ok("download")
    accepted.ok("install")
    assert gate.read_text() == "release-2"


# What becomes of an installation that ends half-way.

BAD_BLOCK = """\
import builtins, errno
def opening(path, *words, plain=open, **options):
    if str(path).endswith("artifact.mender"):
        raise OSError(errno.EIO, "Input/output error")
    return plain(path, *words, **options)
builtins.open = opening
"""
NO_MEMORY = """\
import builtins, os
def opening(path, *words, plain=open, **options):
    if str(path).endswith("artifact.mender"):
        os.kill(os.getpid(), 9)
    return plain(path, *words, **options)
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


def test_what_cannot_be_read_is_fetched_again(downloaded: Device, server: DevServer) -> None:
    with spoilt(downloaded, BAD_BLOCK):
        done = downloaded.run("install")
    assert (done.code, "Input/output error" in done.err) == (74, True)
    downloaded.ok("run", "--all", "--force")
    assert downloaded.state["handoff"]
    assert len([seen for seen in server.requests if seen.origin == "storage"]) == 2


def test_an_installation_that_always_ends_half_way_has_an_end(downloaded: Device, server: DevServer) -> None:
    """As for want of memory."""
    wanted = deployment(downloaded)
    downloaded.configure(RetryDownloadCount=3)
    with spoilt(downloaded, NO_MEMORY):
        assert [downloaded.run("install").code for _ in range(3)] == [-9] * 3
        done = downloaded.run("install")
    assert (done.code, "3 attempts to verify it have ended half-way" in done.err) == (69, True)
    downloaded.ok("run", "--force")
    assert server.status_history(wanted)[-1] == "failure"


def test_there_is_a_first_attempt_where_no_more_are_allowed(downloaded: Device) -> None:
    downloaded.configure(RetryDownloadCount=0)
    assert downloaded.ok("install", "--json").json["outcome"] == "handed-off"


def test_the_time_is_over_while_the_sub_updater_starts(
    downloaded: Device, server: DevServer, tmp_path: Path
) -> None:
    """It may run, or not: its own report counts, and nobody else's."""
    wanted = deployment(downloaded)
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    downloaded.sub_updater(f"read -r go < {gate}; $ONESHOT report --success; echo $? > {gate}\n")
    downloaded.environment["PYTHONWARNINGS"] = (
        "error,ignore::ResourceWarning"  # a child that nobody waits for
    )
    with spoilt(downloaded, SLOW_START):
        assert downloaded.run("install").code == 75
    assert server.status(wanted) == "installing"
    assert downloaded.run("install").code == 75
    gate.write_text("go\n")
    assert gate.read_text() == "0\n"
    assert server.status(wanted) == "success"


def test_a_server_out_of_reach_does_not_hold_up_what_is_here(downloaded: Device, server: DevServer) -> None:
    wanted = deployment(downloaded)
    server.faults.add(match="PUT */status", drop_before=True)
    downloaded.sub_updater('$ONESHOT report --success && rm "$MENDER_DATASTORE_DIR/update.lock"\n')
    assert downloaded.ok("install", "--json").json["outcome"] == "handed-off"
    server.wait_for(final_status)
    assert server.status(wanted) == "success"


def test_nothing_to_install(accepted: Device, release: Release) -> None:
    assert accepted.run("install").code == 2
    release()
    accepted.ok("check-update")
    done = accepted.run("install")
    assert done.code == 2
    assert "run download first" in done.err
