"""`make demo`: a device's life in a minute, on the development server, each step a process of its own.

Nothing here is staged: real HTTPS on loopback, a real artifact, a real kill, a real sub-updater script.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

from helpers.artifacts import make_artifact

from mender_oneshot.devserver import DevServer

TOOL = Path(sys.executable).with_name("mender-oneshot")
SIZE = 40_000_000

SUB_UPDATER = """\
#!/bin/sh
# Called as: install ARTIFACT. A real one writes a root file system and reboots; this one unpacks a file.
set -eu
tar -xOf "$1" data/0000.tar | tar -xO app > {root}/app
echo "artifact_name=$MENDER_ARTIFACT_NAME" > {root}/etc/artifact_info
{tool} report --success
rm "$MENDER_DATASTORE_DIR/update.lock"
"""


class Demo:
    """The device on this desk, and the voice that tells what happens."""

    def __init__(self, root: Path, server: DevServer) -> None:
        self.root = root
        self.server = server
        self.environment = os.environ | {
            "MENDER_CONF_DIR": str(root / "etc"),
            "MENDER_DATA_DIR": str(root / "share"),
            "MENDER_DATASTORE_DIR": str(root / "lib"),
        }
        for name in ("etc", "lib", "share/identity", "share/inventory"):
            (root / name).mkdir(parents=True)
        settings = {"ServerURL": server.url, "ServerCertificate": str(server.ca), "StartSpreadSeconds": 0}
        (root / "etc/mender.conf").write_text(json.dumps(settings))
        (root / "etc/artifact_info").write_text("artifact_name=release-1\n")
        (root / "lib/device_type").write_text("device_type=demo-board\n")
        self.script("identity/mender-device-identity", "#!/bin/sh\necho serial=demo-0001\n")
        self.script("inventory/mender-inventory-kernel", "#!/bin/sh\necho kernel=$(uname -r)\n")
        self.script("install", SUB_UPDATER.format(root=root, tool=TOOL))

    def script(self, name: str, text: str) -> None:
        path = self.root / "share" / name
        path.write_text(text)
        path.chmod(0o755)

    def say(self, text: str) -> None:
        print(f"\n{textwrap.fill(text, 100)}", flush=True)

    def step(self, *words: str, expect: int = 0) -> None:
        """Run one invocation and insist on its exit code."""
        print(f"$ mender-oneshot {' '.join(words)}", flush=True)
        code = subprocess.run([TOOL, *words], env=self.environment, check=False).returncode
        if code:
            print(f"  (exit {code})")
        if code != expect:
            sys.exit(f"The demo went wrong: exit code {code} instead of {expect}.")

    def killed_download(self) -> None:
        """Start a download and kill it when half of the artifact is here."""
        print("$ mender-oneshot download &", flush=True)
        self.server.faults.add(match="GET /storage/*", stall_after=SIZE // 2)
        part = self.root / "lib/artifact.part"
        process = subprocess.Popen([TOOL, "download"], env=self.environment)
        while process.poll() is None and not (part.exists() and part.stat().st_size >= SIZE // 2):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.server.faults.release()
        print(f"$ kill -KILL {process.pid}")
        print(f"  ({part.stat().st_size:,} of {SIZE:,} bytes are on disk)")


def main() -> None:
    """Tell the story."""
    root = Path(tempfile.mkdtemp(prefix="mender-oneshot-demo-"))
    with DevServer(root / "server") as server:
        try:
            story(Demo(root, server), server)
        finally:
            shutil.rmtree(root)


def story(demo: Demo, server: DevServer) -> None:
    """From a fresh device to a reported update."""
    demo.say(f"A development server listens on {server.url}; here is a device with no key and no state.")
    demo.step("bootstrap")
    demo.say("It asks for authorization. It is not accepted yet, and reports that:")
    demo.step("auth", expect=77)
    demo.say("A user accepts the device on the server. It is authorized, and sends its inventory.")
    server.accept()
    demo.step("auth")
    demo.step("send-inventory")
    demo.say(f"A release of {SIZE / 1e6:.0f} MB is uploaded and deployed; the device finds it.")
    artifact = make_artifact(
        demo.root / "release-2.mender",
        name="release-2",
        device_types=("demo-board",),
        payload={"app": os.urandom(SIZE)},
        compression="none",
    )
    server.upload(artifact)
    deployment = server.deploy("release-2")
    demo.step("check-update", "--exit-code", expect=16)
    demo.say("Half-way through the download the process is killed.")
    demo.killed_download()
    demo.step("status")
    demo.say("The next invocation resumes where the last one was killed.")
    demo.step("download")
    sent = sum(seen.sent for seen in server.requests if seen.origin == "storage")
    print(f"  (the storage sent {sent / artifact.stat().st_size:.2f} times the artifact's size in all)")
    demo.say("The artifact is verified and handed to the sub-updater, which installs it and reports.")
    demo.step("install")
    server.wait_for(lambda seen: seen.path.endswith("/status") and b"success" in seen.body)
    demo.say("The server knows:")
    print(f"  deployment status: {' -> '.join(server.status_history(deployment))}")
    demo.step("show-artifact")
    demo.say("From here on a timer calls `run --all`. With nothing to do it is quick and quiet.")
    demo.step("run", "--all")
    demo.step("run", "--all")
    print(f"\nDone: {server.status(deployment)}.")


if __name__ == "__main__":
    main()
