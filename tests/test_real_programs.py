"""With the programs of the field, from Debian's packages: `mender`, `mender-artifact`, `openssl`."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from helpers.device import REPO, Device
from helpers.raw_device import RawDevice
from helpers.real_daemon import TRACE, daemon, end_sub_updater, need, sub_updater
from helpers.waiting import until

from mender_oneshot.devserver import DevServer, Seen

pytestmark = pytest.mark.real

SIZE = 4_000_000
CONTENT = random.Random(1).randbytes(SIZE)
SLACK = 300_000
INSTALLED = ["downloading", "installing", "success"]
FAILED = ["downloading", "installing", "failure"]


class Workshop:
    """Where artifacts for the update module `single-file` are made and signed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        need("openssl", "mender-artifact")
        # mender-artifact 3.9.0 reads no PKCS#8.
        self._do("openssl", "genrsa", "-traditional", "-out", "rsa", "3072")
        for name in ("ecdsa", "stranger"):
            self._do("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", name)
        for name in ("rsa", "ecdsa", "stranger"):
            self._do("openssl", "pkey", "-in", name, "-pubout", "-out", f"{name}.pub")

    def public(self, name: str) -> str:
        """The path of a public key."""
        return str(self.path / f"{name}.pub")

    def artifact(self, destination: Path, signer: str = "", name: str = "release-2") -> Path:
        """An artifact that puts `app` into a directory."""
        payload = {"dest_dir": f"{destination}\n".encode(), "filename": b"app\n", "permissions": b"640\n"}
        words = ["-T", "single-file", "-t", "board", "-n", name, "-o", f"{name}.mender"]
        for file, content in {**payload, "app": CONTENT}.items():
            (self.path / file).write_bytes(content)
            words += ["-f", file]
        self._do("mender-artifact", "write", "module-image", *words, *(["-k", signer] if signer else []))
        return self.path / f"{name}.mender"

    def give_key(self, device: Device) -> Path:
        """A device key as mender-python-client and mender-client made them: RSA, PKCS#1."""
        key = device.data / "mender-agent.pem"
        shutil.copy(self.path / "rsa", key)
        key.chmod(0o600)
        return key

    def _do(self, *words: str) -> None:
        subprocess.run(words, cwd=self.path, check=True, capture_output=True, timeout=30)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture
def device(device: Device) -> Iterator[Device]:
    """The usual device; its sub-updater, which outlives what started it, does not outlive the test."""
    yield device
    end_sub_updater(device)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where updates put their file."""
    made = tmp_path / "place"
    made.mkdir()
    return made


@pytest.fixture
def blocked(tmp_path: Path) -> Path:
    """Where no update can put a file, not even as root: below something that is no directory."""
    (tmp_path / "file").write_text("in the way")
    return tmp_path / "file" / "place"


def reported(deployment: str, status: str) -> Callable[[Seen], bool]:
    """A status report that the server took."""
    path = f"/deployments/{deployment}/status"
    return lambda seen: (
        seen.path.endswith(path) and f'"{status}"'.encode() in seen.body and seen.status == 204
    )


def uploaded(deployment: str) -> Callable[[Seen], bool]:
    """The upload of a deployment's log."""
    return lambda seen: seen.path.endswith(f"/deployments/{deployment}/log") and seen.status == 204


def inventory(word: bytes) -> Callable[[Seen], bool]:
    """An inventory with some word in it."""
    return lambda seen: seen.path.endswith("/attributes") and word in seen.body and seen.status == 200


def story(server: DevServer, deployment: str) -> list[str]:
    """Return the statuses that the server got for a deployment, without repetitions."""
    return [status for status, _ in groupby(server.status_history(deployment))]


def words(server: DevServer, deployment: str) -> str:
    """The log at the server."""
    return "\n".join(entry["message"] for entry in server.log(deployment) or [])


def downloads(server: DevServer) -> list[Seen]:
    """What was asked of the artifact storage."""
    return [seen for seen in server.requests if seen.path.startswith("/storage/")]


def nothing_more(device: Device, server: DevServer) -> bool:
    """Return whether the device asks for the next update and gets none."""
    device.ok("run", "--all", "--force")
    asked = [seen for seen in server.requests if seen.path.endswith("/next")]
    return asked[-1].status == 204


# --- The server is true: Debian's own daemon works with it --------------------------------------------------


@pytest.fixture
def reference(tmp_path: Path, server: DevServer) -> Device:
    """A device of mender-client 3.4.0."""
    made = Device(tmp_path / "device", sys.executable)
    made.script("inventory/mender-inventory-colour", "#!/bin/sh\necho colour=blue\necho colour=green\n")
    made.configure(
        ServerURL=server.url,
        ServerCertificate=str(server.ca),
        UpdatePollIntervalSeconds=1,
        InventoryPollIntervalSeconds=1,
        RetryPollIntervalSeconds=1,
    )
    return made


def join(server: DevServer) -> None:
    """Wait for the daemon's first request, and accept it."""
    server.wait_for(lambda seen: seen.path.endswith("/auth_requests") and seen.status == 401)
    assert server.device().status == "pending"
    server.accept()


def test_the_reference_client_joins_and_updates(
    reference: Device, server: DevServer, workshop: Workshop, place: Path
) -> None:
    with daemon(reference):
        join(server)
        server.wait_for(inventory(b"release-1"))
        joined = server.device()
        assert joined.identity == {"mac": "de:ad:be:ef:00:01"}
        assert joined.attributes["device_type"] == "board"
        assert joined.attributes["artifact_name"] == "release-1"
        assert joined.attributes["mender_client_version"].startswith("3.")
        assert sorted(joined.attributes["colour"]) == ["blue", "green"]

        server.upload(workshop.artifact(place, "rsa"))
        deployment = server.deploy("release-2")
        server.wait_for(reported(deployment, "success"))
        assert story(server, deployment) == INSTALLED
        assert server.log(deployment) is None
        assert (place / "app").read_bytes() == CONTENT
        assert (place / "app").stat().st_mode & 0o777 == 0o640

        server.wait_for(inventory(b"release-2"))


def test_the_reference_client_resumes_a_download_that_was_cut(
    reference: Device, server: DevServer, workshop: Workshop, place: Path, tmp_path: Path
) -> None:
    workshop.give_key(reference)
    server.faults.add("GET /storage/*", cut_after=SIZE // 2)
    # It waits for a minute before it resumes, whatever its configuration says.
    with daemon(reference):
        join(server)
        artifact = workshop.artifact(place)
        server.upload(artifact)
        deployment = server.deploy("release-2")
        server.wait_for(reported(deployment, "success"), timeout=120)
    cut, resumed = downloads(server)
    assert (cut.status, cut.sent, cut.headers["Range"]) == (200, SIZE // 2, None)
    assert (resumed.status, resumed.headers["Range"]) == (206, f"bytes={SIZE // 2}-")
    assert cut.sent + resumed.sent == artifact.stat().st_size
    assert story(server, deployment) == INSTALLED
    assert (place / "app").read_bytes() == CONTENT


def test_the_reference_client_reports_a_failure_with_its_log(
    reference: Device, server: DevServer, workshop: Workshop, blocked: Path
) -> None:
    workshop.give_key(reference)
    with daemon(reference):
        join(server)
        server.upload(workshop.artifact(blocked))
        deployment = server.deploy("release-2")
        log = server.wait_for(uploaded(deployment))
        assert story(server, deployment) == FAILED
        assert "cannot create directory" in words(server, deployment)
        server.wait_for(lambda seen: seen.path.endswith("/next") and seen.status == 204 and seen.at > log.at)


def test_a_device_of_the_reference_client_is_taken_over(
    reference: Device, server: DevServer, workshop: Workshop
) -> None:
    workshop.give_key(reference)
    with daemon(reference):
        join(server)
        server.wait_for(inventory(b"release-1"))
    reference.ok("auth")
    assert nothing_more(reference, server)
    assert server.device().attributes["mender_client_version"].startswith("mender-oneshot")


# --- The main job, the sub-updater having Debian's `mender` install -----------------------------------------


@pytest.fixture
def field(device: Device) -> Device:
    """A device with a sub-updater that leaves the work to `mender install`."""
    device.sub_updater(sub_updater(device))
    return device


def sub_updater_is_done(device: Device) -> None:
    """Wait for the last thing a sub-updater does."""
    until(lambda: not (device.data / "update.lock").exists(), "the sub-updater removes update.lock")


@pytest.mark.parametrize(("signer", "verified"), [("rsa", False), ("ecdsa", True)])
def test_an_update_from_the_first_boot_to_the_report(
    field: Device, server: DevServer, workshop: Workshop, place: Path, signer: str, verified: bool
) -> None:
    if verified:
        field.configure(ArtifactVerifyKey=workshop.public(signer))
    artifact = workshop.artifact(place, signer)
    server.upload(artifact)

    field.ok("bootstrap")
    assert field.run("auth").code == 77
    server.accept()
    field.ok("auth")
    field.ok("send-inventory")
    assert field.run("check-update", "--exit-code").code == 0
    deployment = server.deploy("release-2")
    assert field.run("check-update", "--exit-code").code == 16

    killed_at = kill_half_way(field, server)
    field.ok("download")
    cut, resumed = downloads(server)
    assert resumed.headers["Range"] == f"bytes={killed_at}-"
    assert cut.sent + resumed.sent <= artifact.stat().st_size + SLACK

    field.ok("install")
    server.wait_for(reported(deployment, "success"))
    sub_updater_is_done(field)
    assert story(server, deployment) == INSTALLED
    assert server.log(deployment) is None
    assert (place / "app").read_bytes() == CONTENT

    assert nothing_more(field, server)
    assert server.device().attributes["artifact_name"] == "release-2"


def kill_half_way(device: Device, server: DevServer) -> int:
    """Kill a download in the middle and return how far it came."""
    half = SIZE // 2
    server.faults.add("GET /storage/*", stall_after=half)
    part = device.data / "artifact.part"
    process = device.start("download", start_new_session=True)
    try:
        server.faults.wait_for_stall()
        until(lambda: part.exists() and part.stat().st_size > half - SLACK, "artifact.part grows")
    finally:
        process.kill()
        process.communicate(timeout=20)
    assert process.returncode == -9
    server.wait_for(lambda seen: seen.path.startswith("/storage/"))
    return part.stat().st_size


def test_an_update_that_the_module_cannot_install(
    field: Device, server: DevServer, workshop: Workshop, blocked: Path
) -> None:
    assert field.run("auth").code == 77
    server.accept()
    server.upload(workshop.artifact(blocked, "ecdsa"))
    deployment = server.deploy("release-2")
    assert field.run("check-update", "--exit-code").code == 16
    field.ok("download")
    field.ok("install")
    server.wait_for(uploaded(deployment))
    sub_updater_is_done(field)
    assert story(server, deployment) == FAILED
    assert "cannot create directory" in words(server, deployment)
    assert "Update module terminated abnormally" in words(server, deployment)
    assert nothing_more(field, server)
    assert server.device().attributes["artifact_name"] == "release-1"
    assert story(server, deployment) == FAILED


# --- Signed artifacts ---------------------------------------------------------------------------------------

REPORT = """\
touch "$1.seen"
$ONESHOT report --success
rm "$MENDER_DATASTORE_DIR/update.lock"
"""


@pytest.mark.parametrize("signer", ["stranger", ""], ids=["wrong key", "unsigned"])
def test_an_artifact_without_our_signature_is_refused(
    accepted: Device, server: DevServer, workshop: Workshop, place: Path, signer: str
) -> None:
    accepted.sub_updater(TRACE + REPORT)
    accepted.configure(ArtifactVerifyKey=workshop.public("ecdsa"))
    server.upload(workshop.artifact(place, signer))
    deployment = server.deploy("release-2")
    assert accepted.run("check-update", "--exit-code").code == 16
    refused = accepted.run("download")  # the manifest and its signature come first
    assert refused.code == 65
    accepted.ok("run")
    assert story(server, deployment)[-1] == "failure"
    assert refused.err.splitlines()[-1] in words(server, deployment)
    assert not (accepted.data / "artifact.mender.seen").exists()


def test_an_artifact_with_one_of_our_signatures_is_handed_off(
    accepted: Device, server: DevServer, workshop: Workshop, place: Path
) -> None:
    accepted.sub_updater(TRACE + REPORT)
    accepted.configure(ArtifactVerifyKeys=[workshop.public("ecdsa"), workshop.public("rsa")])
    server.upload(workshop.artifact(place, "rsa"))
    deployment = server.deploy("release-2")
    accepted.ok("run", "--all")
    server.wait_for(reported(deployment, "success"))
    sub_updater_is_done(accepted)
    assert (accepted.data / "artifact.mender.seen").exists()


# --- A device of mender-python-client -----------------------------------------------------------------------

OLD_SUB_UPDATER = """\
echo "installing $1"
echo artifact_name=release-2 >"$MENDER_CONF_DIR/artifact_info"
mender-python-client report --success && rm "$MENDER_DATASTORE_DIR/update.lock"
"""
OLD_LOG = '{"timestamp": "2023-05-04T10:11:12Z", "level": "INFO", "message": "Sleeping for 5 seconds"}\n'
SCRIPT = """\
#!{python}
import sys
sys.path.insert(0, "{place}")
from mender_oneshot.__main__ import main
sys.exit(main())
"""


@pytest.fixture
def old_name(device: Device) -> Path:
    """A link `mender-python-client` to the program, first in PATH."""
    directory = device.root / "bin"
    directory.mkdir()
    program = Path(sys.prefix) / "bin" / "mender-oneshot"
    if device.python != sys.executable or not program.exists():
        program = directory / "mender-oneshot"
        program.write_text(SCRIPT.format(python=device.python, place=REPO))
        program.chmod(0o755)
    link = directory / "mender-python-client"
    link.symlink_to(program)
    device.environment["PATH"] = f"{directory}:{os.environ['PATH']}"
    return link


def test_a_device_of_mender_python_client_stays_the_same_for_the_server(
    device: Device, server: DevServer, old_name: Path, workshop: Workshop, place: Path
) -> None:
    old_key = workshop.give_key(device)
    (device.data / "deployment.log").write_text(OLD_LOG)
    device.script("install", f"#!/bin/sh\n{TRACE}{OLD_SUB_UPDATER}")
    before = old_key.read_bytes()
    key = serialization.load_pem_private_key(before, password=None)
    assert isinstance(key, rsa.RSAPrivateKey)
    RawDevice(server, {"mac": ["de:ad:be:ef:00:01"]}, key).accepted()

    device.ok("auth")
    assert old_key.read_bytes() == before
    server.upload(workshop.artifact(place))
    deployment = server.deploy("release-2")
    device.ok("run", "--all")
    server.wait_for(reported(deployment, "success"))
    sub_updater_is_done(device)
    assert story(server, deployment) == INSTALLED
    assert nothing_more(device, server)
    assert len(server.devices) == 1


def test_the_old_name_does_as_the_new_one(device: Device, old_name: Path) -> None:
    for command in (["show-artifact"], ["report", "--success"], ["daemon"]):
        done = subprocess.run(
            [old_name, *command], env=device.env(), capture_output=True, text=True, timeout=30, check=False
        )
        as_new = device.run(*command)
        assert (done.returncode, done.stdout) == (as_new.code, as_new.out)
