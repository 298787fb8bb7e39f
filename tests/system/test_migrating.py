"""docs/migrating.md, command by command: from another client to this one, and back."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from helpers.artifacts import make_artifact
from helpers.debian import make_install, need_root, system
from helpers.device import REPO, Device
from helpers.machine import Machine, copy, write
from helpers.raw_device import RawDevice
from helpers.real_daemon import mender, need, world
from helpers.seen import final_status
from helpers.waiting import until

from mender_oneshot.devserver import DevServer

pytestmark = pytest.mark.real

OLD_CLIENT = "#!/bin/sh\necho $0 $@\nexec sleep infinity\n"
OLD_UNIT = """[Unit]
Description=mender-python-client
[Service]
ExecStart=/usr/local/bin/mender-python-client daemon
KillMode=process
[Install]
WantedBy=multi-user.target
"""
OLD_LOG = '{"timestamp": "2023-05-04T10:11:12Z", "level": "INFO", "message": "Sleeping for 5 seconds"}\n'
OLD_SUB_UPDATER = """#!/bin/sh
echo "installing $1" >>/var/lib/mender/sub-updater.log
echo artifact_name=release-2 >/etc/mender/artifact_info
mender-python-client report --success && rm /var/lib/mender/update.lock
systemctl restart mender-python-client
"""
INSTALL = OLD_SUB_UPDATER.replace("release-2", "release-3")
OLD_WORDS = (
    ("-d /var/lib/mender -L /root/log -l debug --no-syslog show-artifact", 0, "release-2"),
    ("-v", 0, "mender-oneshot 0."),
    ("bootstrap", 0, ""),
    ("report --success --failure", 2, "nothing to report"),
    ("report", 64, "--success or --failure"),
    ("daemon", 64, "this client has no daemon"),
    ("", 64, "Missing command"),
)
"""The command lines of mender-python-client, and what comes of them now."""

IDENTITY = {"mac": ["de:ad:be:ef:00:01"]}


def commands(section: str) -> list[str]:
    """The shell commands of a section of the document, block by block."""
    text = (REPO / "docs/migrating.md").read_text()
    (part,) = re.findall(rf"^##+ {re.escape(section)}\n(.*?)(?=^##+ |\Z)", text, re.MULTILINE | re.DOTALL)
    return re.findall(r"^```sh\n(.*?)^```", part, re.MULTILINE | re.DOTALL)


@pytest.fixture
def key(tmp_path: Path) -> rsa.RSAPrivateKey:
    """A key as mender-python-client made it."""
    made = rsa.generate_private_key(65537, 3072)
    form = serialization.PrivateFormat.TraditionalOpenSSL
    pem = made.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    (tmp_path / "key.pem").chmod(0o600)
    return made


@pytest.fixture
def root(tmp_path: Path, server: DevServer, key: rsa.RSAPrivateKey) -> Iterator[Path]:
    """A Debian as a device of mender-python-client's leaves it, and the tool installed besides."""
    need_root("systemd-nspawn", "nsenter", "make")
    settings = {
        "ServerURL": server.url,
        "ServerCertificate": "/etc/mender/server.crt",
        "TenantToken": "tenant",
        "UpdatePollIntervalSeconds": 5,
        "InventoryPollIntervalSeconds": 5,
        "RetryPollIntervalSeconds": 5,
        "RootfsPartA": "/dev/a",
        "RootfsPartB": "/dev/b",
    }
    with system(tmp_path / "system") as made:
        make_install(made)
        write(made / "etc/mender/mender.conf", json.dumps(settings))
        connect = {"RemoteTerminal": "True", "ShellCommand": "/bin/bash", "User": "nobody"}
        write(made / "etc/mender/mender-connect.conf", json.dumps(connect))
        copy(server.ca, made / "etc/mender/server.crt")
        write(made / "etc/mender/artifact_info", "artifact_name=release-1\n")
        write(made / "var/lib/mender/device_type", "device_type=board\n")
        write(made / "var/lib/mender/deployment.log", OLD_LOG)
        copy(tmp_path / "key.pem", made / "var/lib/mender/mender-agent.pem")
        script = "#!/bin/sh\necho mac=de:ad:be:ef:00:01\n"
        write(made / "usr/share/mender/identity/mender-device-identity", script, 0o755)
        write(made / "usr/share/mender/inventory/mender-inventory-x", "#!/bin/sh\necho colour=blue\n", 0o755)
        write(made / "usr/share/mender/install", OLD_SUB_UPDATER, 0o755)
        write(made / "usr/local/bin/mender-python-client", OLD_CLIENT, 0o755)
        write(made / "etc/systemd/system/mender-python-client.service", OLD_UNIT)
        enable = ["systemctl", f"--root={made}", "--quiet", "enable", "mender-python-client"]
        subprocess.run(enable, check=True)
        yield made


@pytest.mark.parametrize("linked", [False, True], ids=["directory", "link"])
def test_from_mender_python_client_and_back(
    root: Path, tmp_path: Path, server: DevServer, key: rsa.RSAPrivateKey, linked: bool
) -> None:
    if linked:
        (root / "data").mkdir()
        (root / "var/lib/mender").rename(root / "data/mender")
        (root / "var/lib/mender").symlink_to("/data/mender")
    RawDevice(server, IDENTITY, key).accepted()
    known = server.device().id
    data = root / ("data/mender" if linked else "var/lib/mender")
    agent = data / "mender-agent.pem"
    pem = agent.read_bytes()
    with Machine(root, tmp_path / "console") as machine:

        def old() -> str:
            """How the old client's service is."""
            return machine.run("systemctl", "is-active", "mender-python-client", check=False).stdout.strip()

        assert old() == "active"
        for block in commands("Change over"):
            machine.run("sh", "-euc", block)
        the_backup_brings_all_back(machine, agent, linked)
        for block in commands("Check"):
            machine.run("sh", "-euc", block)
        assert old() == "inactive"
        assert server.device().id == known
        assert server.device().identity == IDENTITY
        assert server.device().attributes["mender_client_version"].startswith("mender-oneshot")
        assert server.device().attributes["colour"] == "blue"

        server.upload(make_artifact(tmp_path / "release-2.mender", name="release-2"))
        deployment = server.deploy("release-2")
        machine.run("mender-oneshot", "run", "--all", "--force", check=False)  # or the timer was faster
        server.wait_for(final_status, timeout=120)
        lock = data / "update.lock"
        until(lambda: not lock.exists(), "the old sub-updater removes its lock")
        assert server.status_history(deployment)[-1] == "success"
        assert old() == "inactive"
        assert machine.failed() == ""

        for words, code, said in OLD_WORDS:
            done = machine.run("mender-python-client", *words.split(), check=False)
            assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done

        stop, back = commands("Back to mender-python-client")
        # An update that comes in just then.
        machine.run("systemctl", "stop", "mender-oneshot-*.timer", "mender-oneshot-*.service")
        write(
            root / "usr/share/mender/install",
            f"#!/bin/sh\nmkfifo /run/go; read -r go </run/go\n{INSTALL}",
            0o755,
        )
        server.upload(make_artifact(tmp_path / "release-3.mender", name="release-3"))
        deployment = server.deploy("release-3")
        state = data / "mender-oneshot.json"
        state.write_text(json.dumps(json.loads(state.read_text()) | {"checked_at": 0}))
        assert "\ninstalling " in machine.run("sh", "-euc", stop).stdout
        assert machine.run("sh", "-euc", back, check=False).returncode == 1
        assert old() == "inactive"
        machine.run("timeout", "20", "sh", "-c", "echo >/run/go")
        until(lambda: not lock.exists(), "the update ends")
        assert server.status(deployment) == "success"

        said = machine.run("sh", "-euc", stop).stdout
        assert not re.search("^(update|installing|pending result) ", said, re.MULTILINE)
        machine.run("sh", "-euc", back)
        assert old() == "active"
        assert machine.run("systemctl", "is-enabled", "mender-python-client").stdout == "enabled\n"
        assert machine.failed() == ""
        assert (root / "usr/local/bin/mender-python-client").read_text() == OLD_CLIENT
        assert (root / "etc/systemd/system/mender-python-client.service").read_text() == OLD_UNIT
        # The key and the form of the identity are what the old client is known by.
        assert agent.read_bytes() == pem
        assert RawDevice(server, IDENTITY, key).authorize().status == 200

        # A second change-over: the device still knows who it is.
        for block in [*commands("Change over"), *commands("Check")]:
            machine.run("sh", "-euc", block)
        assert server.device().id == known


def the_backup_brings_all_back(machine: Machine, key: Path, linked: bool) -> None:
    """As it was, but for the key, which is lost meanwhile."""
    pem = key.read_bytes()
    settings = machine.root / "etc/mender/mender.conf"
    key.unlink()
    settings.unlink()
    machine.run("tar", "-C", "/", "-xzf", "/root/mender-before.tar.gz")
    assert key.read_bytes() == pem
    assert key.stat().st_mode & 0o777 == 0o600
    assert settings.exists()
    assert (machine.root / "var/lib/mender").is_symlink() == linked


@pytest.mark.parametrize("v2", [False, True], ids=["asked as before", "asked in two ways"])
def test_a_deployment_that_the_old_client_had_begun(tmp_path: Path, key: rsa.RSAPrivateKey, v2: bool) -> None:
    with DevServer(tmp_path / "server", v2=v2) as server:
        device = Device(tmp_path / "device", sys.executable)
        device.configure(ServerURL=server.url, ServerCertificate=str(server.ca))
        copy(tmp_path / "key.pem", device.data / "mender-agent.pem")
        (device.data / "deployment.log").write_text(OLD_LOG)
        (device.conf / "artifact_info").write_text("artifact_name=release-1\nrootfs-image.checksum=01\n")
        device.sub_updater('$ONESHOT report --success && rm "$MENDER_DATASTORE_DIR/update.lock"\n')
        old = RawDevice(server, IDENTITY, key).accepted()
        server.upload(make_artifact(tmp_path / "release-2.mender", name="release-2"))
        deployment = server.deploy("release-2")
        assert old.next().status == 200
        assert old.status(deployment, "downloading") == 204
        device.run("run", "--all")
        if not v2:
            server.wait_for(final_status)
        assert server.status(deployment) == ("failure" if v2 else "success")
        assert len(server.devices) == 1


# --- The Go client ------------------------------------------------------------------------------------------


def test_from_mender_client(tmp_path: Path, server: DevServer) -> None:
    need("mender", "unshare")
    device = Device(tmp_path / "device", sys.executable)
    device.configure(ServerURL=server.url, ServerCertificate=str(server.ca))
    bin_dir = tmp_path / "bin"
    program = shlex.join([shutil.which("mender") or "", *mender(device)[1:]])
    for name, command in {"mender": f'exec {program} "$@"', "systemctl": ":"}.items():
        write(bin_dir / name, f"#!/bin/sh\n{command}\n", 0o755)
    device.environment["PATH"] = f"{bin_dir}:{os.environ['PATH']}"
    payload = {
        "dest_dir": f"{tmp_path}\n".encode(),
        "filename": b"app\n",
        "permissions": b"644\n",
        "app": b"2",
    }
    artifact = make_artifact(
        tmp_path / "r",
        name="release-7",
        payload=payload,
        payload_type="single-file",
        provides={"rootfs-image.checksum": "0123"},
    )

    def do(script: str) -> None:
        subprocess.run(
            [*world(device), "sh", "-euc", script], env=device.env(), check=True, capture_output=True
        )

    do(f"mender install {artifact} && mender commit")
    assert (tmp_path / "app").read_bytes() == b"2"
    (block,) = commands("From mender-client, the Go client (3.x)")
    do(block)
    lines = (device.conf / "artifact_info").read_text().splitlines()
    assert lines[0] == "artifact_name=release-7"
    assert "rootfs-image.checksum=0123" in lines
    assert device.ok("show-artifact").out == "release-7\n"

    (device.data / "deployment.log").write_text(OLD_LOG)
    assert device.run("auth").code == 77
    assert server.device().identity == {"mac": "de:ad:be:ef:00:01"}
    server.accept()
    device.ok("auth")
    # What an artifact may depend on is known.
    server.upload(
        make_artifact(tmp_path / "s", name="release-8", depends={"rootfs-image.checksum": ["0123"]})
    )
    server.deploy("release-8")
    device.sub_updater()
    assert [step["outcome"] for step in device.ok("run", "--all", "--json").json["steps"]][-1] == "handed-off"
