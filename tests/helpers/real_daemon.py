"""Debian's own `mender` in a mount namespace, so that its compiled-in paths lead to a test's directory."""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.device import Device

BUS = """\
<busconfig>
  <type>session</type>
  <listen>unix:dir=/run</listen>
  <policy context="default">
    <allow own="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
  </policy>
</busconfig>
"""


def need(*programs: str) -> None:
    """Skip the test if a program is missing, or if `unshare` is needed and mounting is not permitted."""
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if "unshare" in programs:
        tried = subprocess.run(["unshare", "-m", "true"], capture_output=True, text=True, check=False)
        if tried.returncode:
            pytest.skip(f"mounting needs root and the right to unshare: {tried.stderr.strip()}")


def world(device: Device) -> list[str]:
    """Return a wrapper that mounts the device's directories at the system's paths for `mender`."""
    need("mender")
    return mounted(
        {
            device.conf: "/etc/mender",
            device.scripts / "identity": "/usr/share/mender/identity",
            device.scripts / "inventory": "/usr/share/mender/inventory",
        }
    )


def mounted(mounts: dict[Path, str]) -> list[str]:
    """Return a wrapper that mounts directories at the system's paths for a command."""
    need("unshare")
    lines = [shlex.join(["mount", "--bind", str(ours), theirs]) for ours, theirs in mounts.items()]
    return ["unshare", "-m", "sh", "-euc", "\n".join([*lines, 'exec "$@"']), "sh"]


def mender(device: Device) -> list[str]:
    """Return the command without its subcommand."""
    return ["mender", "--fallback-config", "/nonexistent", "--data", str(device.data), "--no-syslog"]


@contextlib.contextmanager
def daemon(device: Device) -> Iterator[None]:
    """Run the real daemon on its own bus, in a process namespace that ends with a pipe."""
    need("dbus-run-session")
    command = shlex.join([*mender(device), "daemon"])
    on_bus = f"DBUS_SYSTEM_BUS_ADDRESS=$DBUS_SESSION_BUS_ADDRESS {command}"
    (device.root / "bus.conf").write_text(BUS)
    session = ["dbus-run-session", "--config-file", str(device.root / "bus.conf"), "--", "sh", "-c", on_bus]
    life = f"mount -t tmpfs bus /run && {shlex.join(session)} & read -r end"
    namespace = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", life]
    log = device.root / "daemon.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*world(device), *namespace], stdin=subprocess.PIPE, stdout=output, stderr=output
        )
    assert process.stdin
    try:
        yield
    finally:
        # With its first process the kernel ends all others of a namespace.
        process.stdin.close()
        try:
            process.wait(timeout=20)
        finally:
            process.kill()
            process.wait()
        print(log.read_text()[-5000:])  # pytest shows it when the test fails


PID = "sub-updater.pid"
TRACE = f"""\
echo $$ >"$MENDER_DATASTORE_DIR/{PID}"
trap 'rm "$MENDER_DATASTORE_DIR/{PID}"' EXIT
"""
"""The first lines of a sub-updater that can be ended with the test."""

SUB_UPDATER = """\
mender() {{ {mender} "$@"; }}
if mender install "$1"; then
    mender commit
    case $? in
    0)
        echo "artifact_name=$(mender show-artifact)" >"$MENDER_CONF_DIR/artifact_info"
        $ONESHOT report --success ;;
    2) $ONESHOT report --failure ;;
    *) exit 1 ;;
    esac
else
    $ONESHOT report --failure
fi
rm "$MENDER_DATASTORE_DIR/update.lock"
"""


def sub_updater(device: Device) -> str:
    """Return a sub-updater that installs and commits with the real `mender`, as an official sample does."""
    return TRACE + SUB_UPDATER.format(mender=shlex.join([*world(device), *mender(device)]))


def end_sub_updater(device: Device) -> None:
    """End a sub-updater that is still running, and its children."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        os.killpg(int((device.data / PID).read_text()), signal.SIGKILL)
