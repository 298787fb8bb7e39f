"""Makes docs/pictures/devserver.png: the web page with a finished and a running deployment, and a terminal.

`.venv/bin/python tests/picture.py` needs Chromium, chromedriver and a font such as DejaVu (Debian: chromium
chromium-driver fonts-dejavu).
"""

import json
import os
import sys
import tempfile
from pathlib import Path

from helpers.browser import ENTER, Browser, driver
from helpers.device import REPO, Device
from helpers.raw_device import RawDevice
from helpers.update_module import Recorder
from helpers.waiting import until

from mender_oneshot.devserver import DevServer

PICTURE = REPO / "docs" / "pictures" / "devserver.png"
INVENTORY = """#!/bin/sh
echo device_type=raspberrypi4
echo hostname=greenhouse
"""
PROFILE = """
mender-oneshot() {{ env {variables} {python} -m mender_oneshot "$@"; }}
PS1='root@greenhouse:~# '
clear
"""


def main() -> None:
    """Play the scene and write the picture."""
    for name in set(os.environ) - {"PATH", "HOME"}:  # the environment of a device
        del os.environ[name]
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place,
        DevServer(Path(place, "server"), accept_all=True) as server,
    ):
        device = Device(Path(place, "device"), sys.executable)
        device.script("identity/mender-device-identity", "#!/bin/sh\necho mac=dc:a6:32:5e:91:07\n")
        device.script("inventory/mender-inventory-host", INVENTORY)
        (device.data / "device_type").write_text("device_type=raspberrypi4\n")
        device.use_server(server)
        device.ok("auth")
        variables = " ".join(f"{name}='{value}'" for name, value in device.env().items())
        Path(place, "profile.sh").write_text(PROFILE.format(variables=variables, python=device.python))
        settings = {"RemoteTerminal": True, "ShellCommand": "/bin/bash", "ShellArguments": ["--norc"]}
        (device.conf / "mender-connect.conf").write_text(json.dumps(settings))
        _update(server, device, place)
        server.accept_all = False
        RawDevice(server, {"mac": "dc:a6:32:5e:91:2c"}).authorize()
        with device.start("terminal", "--wait", "0") as terminal, driver() as port:
            server.wait_connected(_id(server, "accepted"))
            try:
                PICTURE.write_bytes(_picture(Browser(port, Path(place, "profile")), server, place))
            finally:
                Path(place, "gate").write_text("\n")
                terminal.terminate()
                server.wait_for(
                    lambda seen: b"success" in seen.body and server.deployments[1].id in seen.path
                )


def _update(server: DevServer, device: Device, place: str) -> None:
    """Finish the update to one release, and begin the one to the next."""
    module = Recorder(device, name="application")
    for name in ("release-2", "release-3"):
        server.upload(module.artifact(device, name, device_types=["raspberrypi4"]))
    server.deploy("release-2")
    device.ok("run", "--all", "--force")
    server.wait_for(lambda seen: seen.path.endswith("/status") and b"success" in seen.body)
    (device.conf / "artifact_info").write_text("artifact_name=release-2\n")
    device.run("run", "--all", "--force")
    device.ok("send-inventory")
    server.deploy("release-3")
    os.mkfifo(Path(place, "gate"))
    module.at("ArtifactInstall", f"read line <{place}/gate")
    device.ok("run", "--all", "--force")
    server.wait_for(lambda seen: seen.path.endswith("/status") and b"installing" in seen.body)


def _id(server: DevServer, status: str) -> str:
    return next(device.id for device in server.devices if device.status == status)


def _picture(browser: Browser, server: DevServer, place: str) -> bytes:
    browser.devtools("Emulation.setScrollbarsHidden", hidden=True)
    browser.size(1280, 940)
    browser.open(f"{server.url}/")
    browser.wait("#deployments .card", "installing")
    browser.click("#devices [data-is=open]")
    browser.wait("#terminal-state", "Connected")
    browser.press(f". {place}/profile.sh{ENTER}")
    browser.wait("#terminal .xterm-rows", "greenhouse")
    browser.press(f"mender-oneshot status{ENTER}")
    browser.wait("#terminal .xterm-rows", "installing")
    until(lambda: browser.text("#terminal .xterm-rows").count("~#") == 2, "the second prompt")
    picture = browser.picture()
    browser.close()
    return picture


if __name__ == "__main__":
    main()
