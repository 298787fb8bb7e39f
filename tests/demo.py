"""`make demo`: one device against the development server, each step a process of its own.

Everything is real: HTTPS on loopback, artifacts, a killed download, an installation, a rollback.
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

HEALTH_CHECK = """\
#!/bin/sh
head -c 7 {app} | grep -q working || {{ echo "The application does not start."; exit 1; }}
"""


class Demo:
    """A device, and the commands that are run on it."""

    def __init__(self, root: Path, server: DevServer) -> None:
        self.root = root
        self.server = server
        self.environment = os.environ | {
            "MENDER_CONF_DIR": str(root / "etc"),
            "MENDER_DATA_DIR": str(root / "share"),
            "MENDER_DATASTORE_DIR": str(root / "lib"),
        }
        for name in ("etc/checks.d", "lib", "share/identity", "share/inventory"):
            (root / name).mkdir(parents=True)
        settings = {"ServerURL": server.url, "ServerCertificate": str(server.ca), "StartSpreadSeconds": 0}
        (root / "etc/mender.conf").write_text(json.dumps(settings))
        (root / "etc/artifact_info").write_text("artifact_name=release-1\n")
        (root / "lib/device_type").write_text("device_type=demo-board\n")
        self.script("identity/mender-device-identity", "#!/bin/sh\necho serial=demo-0001\n")
        self.script("inventory/mender-inventory-kernel", "#!/bin/sh\necho kernel=$(uname -r)\n")
        self.script("../etc/checks.d/10-application", HEALTH_CHECK.format(app=self.application))

    @property
    def application(self) -> Path:
        """The file that the updates replace."""
        return self.root / "application"

    def script(self, name: str, text: str) -> None:
        path = self.root / "share" / name
        path.write_text(text)
        path.chmod(0o755)

    def explain(self, text: str) -> None:
        """Print what the next commands show."""
        print(f"\n{textwrap.fill(text, 100)}", flush=True)

    def step(self, *words: str, expect: int | None = 0) -> None:
        """Run one invocation and insist on its exit code; None accepts any."""
        print(f"$ mender-oneshot {' '.join(words)}", flush=True)
        code = subprocess.run([TOOL, *words], env=self.environment, check=False).returncode
        if code:
            print(f"  (exit {code})")
        if expect not in (code, None):
            sys.exit(f"The demo went wrong: exit code {code} instead of {expect}.")

    def killed_download(self) -> None:
        """Start a download and kill it at half of the artifact."""
        print("$ mender-oneshot download &", flush=True)
        self.server.faults.add(match="GET /storage/*", stall_after=SIZE // 2)
        part = self.root / "lib/artifact.part"
        process = subprocess.Popen([TOOL, "download"], env=self.environment)
        while process.poll() is None and not (part.exists() and part.stat().st_size >= SIZE // 2):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.server.faults.release()
        if sys.stderr.isatty():
            print()  # the progress bar has not ended its line
        print(f"$ kill -KILL {process.pid}")
        print(f"  ({part.stat().st_size:,} of {SIZE:,} bytes are on disk)")

    def release(self, name: str, content: bytes) -> str:
        """Upload and deploy an artifact that replaces the application; return the deployment's id."""
        artifact = make_artifact(
            self.root / f"{name}.mender",
            name=name,
            device_types=("demo-board",),
            payload={
                "dest_dir": str(self.root).encode(),
                "filename": b"application",
                "permissions": b"755",
                "application": content,
            },
            payload_type="single-file",
            compression="none",
        )
        self.server.upload(artifact)
        return self.server.deploy(name)

    def wait_for(self, deployment: str, status: str) -> None:
        """Wait until the server has the final status, and print what it was sent."""
        end = time.monotonic() + 60
        while self.server.status(deployment) != status or (status == "failure" and not self.log(deployment)):
            if time.monotonic() > end:
                sys.exit(f"The demo went wrong: the deployment is {self.server.status(deployment)}.")
            time.sleep(0.05)
        print(f"  (the server received: {', '.join(self.server.status_history(deployment))})")

    def log(self, deployment: str) -> str:
        """Return the last line of the log of a deployment."""
        lines = self.server.log(deployment) or [{}]
        return str(lines[-1].get("message", ""))


def main() -> None:
    """Run the demo in a directory that is removed afterwards."""
    root = Path(tempfile.mkdtemp(prefix="mender-oneshot-demo-"))
    with DevServer(root / "server") as server:
        try:
            run(Demo(root, server), server)
        finally:
            shutil.rmtree(root)


def run(demo: Demo, server: DevServer) -> None:
    """Take a new device through an update that succeeds and one that is rolled back."""
    demo.explain(f"A development server listens on {server.url}. The device has no key yet.")
    demo.step("bootstrap")
    demo.explain("It requests authorization, but the server has not accepted it yet:")
    demo.step("auth", expect=77)
    demo.explain("A user accepts the device on the server. It is authorized, and sends its inventory.")
    server.accept()
    demo.step("auth")
    demo.step("send-inventory")
    demo.explain("`doctor` checks the whole setup, and has advice for each problem.")
    demo.step("doctor", expect=None)  # this machine may lack a timer that calls the client
    demo.explain(f"A release of {SIZE / 1e6:.0f} MB is uploaded and deployed; the device finds it.")
    good = demo.release("release-2", b"working" + os.urandom(SIZE))
    demo.step("check-update", "--exit-code", expect=16)
    demo.explain("Half-way through the download the process is killed.")
    demo.killed_download()
    demo.step("status")
    demo.explain("The next invocation resumes where the last one was killed.")
    demo.step("download")
    sent = sum(seen.sent for seen in server.requests if seen.origin == "storage")
    size = (demo.root / "release-2.mender").stat().st_size
    print(f"  (the storage sent {sent / size:.2f} times the artifact's size in all)")
    demo.explain(
        "The artifact is verified and handed to the built-in installer. It replaces a file, runs the health "
        "check of this device, commits and reports."
    )
    demo.step("install")
    demo.wait_for(good, "success")
    demo.step("show-artifact")
    demo.explain(
        "The next release is broken. `run --all`, which a timer calls on a device, does all steps. The "
        "health check fails, and the old file comes back."
    )
    bad = demo.release("release-3", b"broken" + os.urandom(1000))
    demo.step("check-update")
    demo.step("run", "--all")
    demo.wait_for(bad, "failure")
    print(f"  (the last line of its log: {demo.log(bad)})")
    demo.step("show-artifact")
    works = demo.application.read_bytes().startswith(b"working")
    demo.explain("With nothing to do, a run is quick and quiet.")
    demo.step("run", "--all")
    demo.step("run", "--all")
    if not works:
        sys.exit("The demo went wrong: the application of release-2 is gone.")
    demo.step("history")
    print("\nDone. What now?")
    print("  docs/first-update.md     the same by hand, with a virtual board of your own")
    print("  docs/hosted-mender.md    with an account at hosted Mender")
    print("  docs/install.md          how to install the client on a device")


if __name__ == "__main__":
    main()
