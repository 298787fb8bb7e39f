"""What tells this device from others, and on what it must not depend."""

import errno
import json
import os
import subprocess
from pathlib import Path

import pytest
from helpers.device import REPO, Device, patched_python

from mender_oneshot.devserver import DevServer
from mender_oneshot.identity import is_unique

SCRIPT = "identity/mender-device-identity"

SAYING_NOTHING = [
    *("", " ", "\t", "00:00:00:00:00:00", "00-00-00-00-00-00", "ff:ff:ff:ff:ff:ff", "FF:FF:FF:FF:FF:FF"),
    *("000000000000", "0000000000000000", "00000000-0000-0000-0000-000000000000"),
    *("ffffffff-ffff-ffff-ffff-ffffffffffff", "03000200-0400-0500-0006-000700080009"),
    *("unknown", "None", "(null)", "N/A", "Default string", "To be filled by O.E.M.", "System Serial Number"),
]
SAYING_SOMETHING = [
    *("0", "00", "1", "f", "00:00:00:00:00:01", "02:00:00:00:00:00", "0000000000000001", "none-1"),
    *("de:ad:be:ef:00:01", "unknown board 7", "10000000d0c0ffee"),
]


@pytest.mark.parametrize(
    ("value", "says"), [(v, False) for v in SAYING_NOTHING] + [(v, True) for v in SAYING_SOMETHING]
)
def test_an_identity_needs_one_value_that_tells_devices_apart(value: str, says: bool) -> None:
    assert is_unique({"mac": value}) is says
    assert is_unique({"mac": [value, ""]}) is says
    # One value is enough.
    assert is_unique({"mac": value, "serial": "17"})


@pytest.mark.parametrize("lines", ["mac=", "mac=00:00:00:00:00:00", "mac= \nserial=unknown"])
@pytest.mark.parametrize("form", ["string", "list"])
def test_an_identity_that_says_nothing_is_never_sent(
    device: Device, server: DevServer, lines: str, form: str
) -> None:
    device.configure(IdentityFormat=form)
    path = device.script(SCRIPT, f"#!/bin/sh\nprintf '%s\\n' '{lines}'\n")
    done = device.run("auth")
    assert done.code == 78
    assert str(path) in done.err
    assert "does not tell this device from others" in done.err
    assert not server.requests
    assert not (device.data / "mender-agent.pem").exists()
    checks = {check["name"]: check for check in device.run("doctor", "--json").json["checks"]}
    assert "does not tell this device from others" in checks["identity"]["message"]
    assert not checks["identity"]["ok"]


def test_an_empty_identity_of_one_bad_boot_makes_no_second_device(
    accepted: Device, server: DevServer
) -> None:
    token = accepted.token
    good = (accepted.scripts / SCRIPT).read_text()
    accepted.script(SCRIPT, "#!/bin/sh\necho mac=\n")
    done = accepted.run("check-update")
    assert "does not tell this device from others" in done.err
    assert accepted.run("auth", "--fresh").code == 78
    assert accepted.token == token
    assert len(server.devices) == 1
    accepted.script(SCRIPT, good)
    accepted.ok("auth", "--fresh")
    assert len(server.devices) == 1


def test_a_device_accepted_with_such_an_identity_stays_accepted(accepted: Device, server: DevServer) -> None:
    accepted.script(SCRIPT, "#!/bin/sh\necho mac=\n")
    # As an older version left it, which did not write down whose token it has.
    accepted.forget_owner()
    accepted.ok("check-update")
    assert accepted.run("auth", "--fresh").code == 77  # the server asks a person about it, as before
    server.accept()
    accepted.ok("auth", "--fresh")
    accepted.ok("check-update")
    assert accepted.run("doctor").code == 78


TELLS_ALL = """#!/bin/sh
env > {told}.env
pwd > {told}.cwd
echo serial=$(printf '%s' "$PATH$LANG$LC_ALL$HOME$USER$TZ" | cksum | cut -d' ' -f1)
"""

CALLERS: dict[str, dict[str, str]] = {
    "cron": {"PATH": "/usr/bin:/bin", "HOME": "/root", "LOGNAME": "root", "SHELL": "/bin/sh"},
    "systemd": {"PATH": "/usr/local/sbin:/usr/bin", "LANG": "de_DE.UTF-8", "INVOCATION_ID": "1"},
    "login": {
        "PATH": "/home/me/bin:/usr/bin:/bin",
        "LC_ALL": "tr_TR.UTF-8",
        "TZ": "Asia/Tokyo",
        "USER": "me",
    },
    "odd": {"PATH": "", "IFS": "x", "ENV": "/etc/passwd", "BASH_ENV": "/etc/passwd", "LD_LIBRARY_PATH": "/x"},
}


@pytest.mark.parametrize("caller", CALLERS)
def test_scripts_do_not_depend_on_the_caller(device: Device, server: DevServer, caller: str) -> None:
    told = device.root / "told"
    device.script(SCRIPT, TELLS_ALL.format(told=told))
    device.run("auth")
    device.environment = CALLERS[caller]
    device.run("auth", "--fresh")
    assert len(server.devices) == 1
    found = dict(
        line.split("=", 1)
        for line in Path(f"{told}.env").read_text().splitlines()
        if not line.startswith("_=")
    )
    found.pop("PWD", None)  # the shell's own
    found.pop("OLDPWD", None)
    found.pop("SHLVL", None)
    assert found == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C",
        "LC_ALL": "C",
        "MENDER_CONF_DIR": str(device.conf),
        "MENDER_DATA_DIR": str(device.scripts),
        "MENDER_DATASTORE_DIR": str(device.data),
    }
    assert Path(f"{told}.cwd").read_text() == "/\n"


TEMPORARY = ("ETXTBSY", "EAGAIN", "EMFILE", "ENOMEM")

NO_START = """
import os, subprocess
class Popen(subprocess.Popen):
    def __init__(self, words, **options):
        if words[0].endswith("{name}"):
            raise OSError({errno}, os.strerror({errno}), words[0])
        super().__init__(words, **options)
subprocess.Popen = Popen
"""


@pytest.mark.parametrize("name", TEMPORARY)
def test_an_identity_script_that_cannot_start_just_now_is_tried_again(
    device: Device, server: DevServer, name: str
) -> None:
    with patched_python(device, NO_START.format(name="/mender-device-identity", errno=getattr(errno, name))):
        done = device.run("auth")
    assert (done.code, "cannot be started just now" in done.err) == (75, True), done
    assert not server.devices
    assert device.run("auth", "--fresh").code == 77
    assert len(server.devices) == 1


@pytest.mark.parametrize("name", TEMPORARY)
def test_an_inventory_script_that_cannot_start_just_now_is_waited_for(
    accepted: Device, server: DevServer, name: str
) -> None:
    """Else the server would lose its lines; but not forever, because the other lines count too."""
    accepted.script("inventory/mender-inventory-a", "#!/bin/sh\necho a=1\n")
    accepted.script("inventory/mender-inventory-b", "#!/bin/sh\necho b=1\n")
    accepted.ok("send-inventory")
    asked = len(server.requests)
    with patched_python(accepted, NO_START.format(name="/mender-inventory-b", errno=getattr(errno, name))):
        codes = [accepted.run("send-inventory").code for _ in range(3)]
        assert codes == [75] * 3
        assert len(server.requests) == asked
        assert server.device().attributes["b"] == "1"
        done = accepted.ok("send-inventory")
    assert "mender-inventory-b cannot be started just now" in done.err
    assert "b" not in server.device().attributes
    assert server.device().attributes["a"] == "1"
    accepted.ok("send-inventory")
    assert server.device().attributes["b"] == "1"


EXAMPLE = REPO / "docs/examples/mender-device-identity"
SHELLS = [["sh"], ["busybox", "sh"]]


def interface(net: Path, name: str, address: str, **files: str) -> None:
    """Make an interface as sysfs shows it: hardware unless `device` is empty."""
    where = net / name
    where.mkdir(parents=True)
    device = files.pop("device", "platform")
    if device:
        behind = net.parent / "devices" / device / name
        behind.mkdir(parents=True)
        (where / "device").symlink_to(behind)
    for file, content in ({"address": address, "type": "1", "addr_assign_type": "0"} | files).items():
        path = where / file.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.write_text(content + "\n")


Interfaces = list[tuple[str, str, dict[str, str]]]

ONE, TWO, LOCAL = "b8:27:eb:00:00:01", "b8:27:eb:00:00:02", "52:54:00:00:00:01"

NETWORKS: dict[str, tuple[Interfaces, str]] = {
    "none": ([], ""),
    "one": ([("eth0", ONE, {})], ONE),
    "another name": ([("enp3s0", ONE, {})], ONE),
    "the lowest address": ([("eth0", TWO, {}), ("eth1", ONE, {})], ONE),
    "whatever the order": ([("eth0", ONE, {}), ("eth1", TWO, {})], ONE),
    "loopback": ([("lo", "00:00:00:00:00:00", {"device": "", "type": "772"}), ("eth0", ONE, {})], ONE),
    "virtual": ([("br0", ONE, {"device": ""}), ("eth0", TWO, {})], TWO),
    "local": ([("eth0", LOCAL, {}), ("eth1", TWO, {})], TWO),
    "only a local one": ([("eth0", LOCAL, {})], ""),
    "a group": ([("eth0", "01:00:5e:00:00:01", {})], ""),
    "random": ([("eth0", ONE, {"addr_assign_type": "1"}), ("eth1", TWO, {})], TWO),
    "zeros": ([("eth0", "00:00:00:00:00:00", {}), ("eth1", TWO, {})], TWO),
    "no Ethernet": ([("can0", ONE, {"type": "280"})], ""),
    "an empty file": ([("eth0", "", {})], ""),
    "plugged in": ([("usb0", ONE, {"device": "pci/usb1"}), ("eth0", TWO, {})], TWO),
    "plugged in only": ([("usb0", ONE, {"device": "pci/usb1"})], ONE),
    "Wi-Fi with a random address": (
        [("wlan0", LOCAL, {"addr_assign_type": "3", "phy80211__macaddress": ONE})], ONE,
    ),
}  # fmt: skip


@pytest.mark.parametrize("shell", SHELLS, ids=["sh", "busybox"])
@pytest.mark.parametrize("case", NETWORKS)
def test_the_example_prints_one_address_or_fails(tmp_path: Path, case: str, shell: list[str]) -> None:
    interfaces, expected = NETWORKS[case]
    (tmp_path / "net").mkdir()
    for name, address, content in interfaces:
        interface(tmp_path / "net", name, address, **content)
    if shell[0] == "busybox" and not os.path.exists("/usr/bin/busybox"):
        pytest.skip("busybox is not installed")
    done = subprocess.run(
        [*shell, str(EXAMPLE), str(tmp_path / "net")],
        capture_output=True, text=True, check=False, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == ((0, f"mac={expected}\n") if expected else (1, ""))
    assert (done.stderr == "") is bool(expected)


def test_the_example_takes_the_interface_that_is_named(tmp_path: Path) -> None:
    interface(tmp_path / "net", "eth0", ONE)
    interface(tmp_path / "net", "eth1", LOCAL)
    script = tmp_path / "script"
    for name, expected in (("eth1", f"mac={LOCAL}\n"), ("eth2", "")):
        script.write_text(EXAMPLE.read_text().replace("INTERFACE=\n", f"INTERFACE={name}\n"))
        done = subprocess.run(["sh", script, tmp_path / "net"], capture_output=True, text=True, check=False)
        assert done.stdout == expected


def test_a_byte_order_mark_is_no_part_of_a_file(accepted: Device) -> None:
    (accepted.conf / "artifact_info").write_bytes(b"\xef\xbb\xbfartifact_name=release-7\n")
    (accepted.data / "device_type").write_bytes(b"\xef\xbb\xbfdevice_type=board-7\r\n")
    found = json.loads(accepted.ok("status", "--json").out)
    assert (found["artifact_name"], found["device_type"]) == ("release-7", "board-7")
