"""At home without systemd: a Debian whose init, shell, cron and tools are busybox's; cron does everything."""

import contextlib
import json
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.artifacts import make_artifact
from helpers.booted_board import RELEASE, WITH_REBOOT, WITHOUT_REBOOT, Board, prepare
from helpers.cron import SENDMAIL, TICK, read
from helpers.debian import make_install, need_root, system
from helpers.device import REPO
from helpers.machine import copy, write
from helpers.seen import final_status
from helpers.uptime import up_for
from helpers.waiting import until

from mender_oneshot.devserver import DevServer, Seen

pytestmark = pytest.mark.real

BUSYBOX = "/usr/local/busybox/bin"
INITTAB = "::sysinit:/etc/init.d/rcS\n"

RCS = f"""#!/bin/sh
export PATH={BUSYBOX}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
syslogd -O /var/log/messages
/usr/share/mender/install &  # ends an update that was under way
crond -b -l 8 -c /var/spool/cron/crontabs
"""

# The second line is another device on this board, its server never there; the third proves that cron mails.
CRONTAB = """MAILTO=root
{line}
* * * * * export MENDER_CONF_DIR=/etc/elsewhere MENDER_DATASTORE_DIR=/var/lib/elsewhere; {command}
* * * * * echo this is mailed
"""

SUB_UPDATER = """#!/bin/sh
# Installs a release into the other root file system; here that is a name in a file, and a reboot.
set -eu
if [ $# -gt 0 ]; then
    while ps | grep -q '[m]ender-oneshot --syslog run'; do usleep 100000; done
    killall crond
    while pidof crond > /dev/null; do usleep 100000; done
    echo "crond has ended, and so has the client; installing $MENDER_ARTIFACT_NAME"
    echo "$MENDER_ARTIFACT_NAME" > /other-root
    sync
    reboot
elif [ -e /var/lib/mender/update.lock ]; then
    echo "artifact_name=$(cat /other-root)" > /etc/mender/artifact_info
    mender-oneshot --syslog report --success
    rm /var/lib/mender/update.lock
fi
"""

# No line for the installer: cron resumes an installation after a boot.
RCS_WITHOUT_SUB_UPDATER = RCS.replace("/usr/share/mender/install", "# ")

# Every few seconds, so that the test need not wait for the next minute, but after a boot.
OFTEN = "* * * * * for turn in $(seq 17); do {command}; sleep 3; done\n"

SETTINGS = {"UpdatePollIntervalSeconds": 5, "RetryPollIntervalSeconds": 5, "StartSpreadSeconds": 0}


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A Debian with the tool installed and busybox in the place of everything else."""
    need_root("busybox", "unshare", "make")
    with system(tmp_path / "system") as made:
        make_install(made)
        (made / BUSYBOX[1:]).mkdir(parents=True)
        copy(Path("/bin/busybox"), made / f"{BUSYBOX[1:]}/busybox")
        subprocess.run(["chroot", made, f"{BUSYBOX}/busybox", "--install", "-s", BUSYBOX], check=True)
        shell = made / "usr/bin/sh"
        shell.unlink()
        shell.symlink_to(f"{BUSYBOX}/sh")
        write(made / "etc/inittab", INITTAB)
        write(made / "etc/init.d/rcS", RCS, 0o755)
        write(made / "usr/sbin/sendmail", SENDMAIL, 0o755)
        write(made / "usr/share/mender/identity/mender-device-identity", "#!/bin/sh\necho mac=1\n", 0o755)
        inventory = (
            "#!/bin/sh\necho shell=$(readlink /bin/sh)\necho boot=$(cat /proc/sys/kernel/random/boot_id)\n"
        )
        write(made / "usr/share/mender/inventory/mender-inventory-test", inventory, 0o755)
        write(made / "usr/share/mender/install", SUB_UPDATER, 0o755)
        write(made / "etc/mender/artifact_info", "artifact_name=release-1\n")
        for data in ("mender", "elsewhere"):
            write(made / f"var/lib/{data}/device_type", "device_type=board\n")
        yield made


@contextlib.contextmanager
def booted(root: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Boot busybox's init in namespaces of its own; when it ends or is powered off, all its processes end.

    A new boot has a new boot id and a new uptime, which only a boot of the host would give it.
    """
    write(root / "run/boot_id", f"{uuid.uuid4()}\n")
    start = f"""
        mount -t proc proc {root}/proc
        mount --bind {root}/run/boot_id {root}/proc/sys/kernel/random/boot_id
        exec chroot {root} {BUSYBOX}/init
    """
    spaces = ["--mount", "--pid", "--uts", "--ipc", "--kill-child", *up_for(5)]
    words = ["unshare", *spaces, "sh", "-euc", start]
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"PATH": "/usr/sbin:/usr/bin"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_from_first_boot_to_a_reported_update(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    told = []

    def tell(line: str) -> None:
        told.append(f"{time.monotonic() - began:6.1f} s  {line}")

    line = [line for line in read(REPO / "cron/busybox-crontab").splitlines() if not line.startswith("#")]
    assert len(line) == 1
    command = line[0].removeprefix("* * * * * ")
    write(root / "var/spool/cron/crontabs/root", CRONTAB.format(line=line[0], command=command))
    messages, mails = root / "var/log/messages", root / "var/mail/all"
    with DevServer(tmp_path / "server") as server:
        copy(server.ca, root / "etc/mender/server.pem")
        settings = {**SETTINGS, "ServerURL": server.url, "ServerCertificate": "/etc/mender/server.pem"}
        write(root / "etc/mender/mender.conf", json.dumps(settings))
        write(
            root / "etc/elsewhere/mender.conf", json.dumps({**settings, "ServerURL": "https://127.0.0.1:9"})
        )
        with booted(root) as machine:
            tell("booted")
            server.wait_for(lambda seen: seen.path.endswith("/auth_requests"), timeout=TICK)
            tell("found by crond's first tick: pending")
            until(lambda: "has not accepted this device yet" in read(messages), "the syslog says so")
            server.accept()
            server.upload(make_artifact(tmp_path / "release-2.mender", name="release-2"))
            deployment = server.deploy("release-2")
            server.wait_for(lambda seen: b'"installing"' in seen.body, timeout=TICK)
            tell("second tick: accepted, release-2 found, downloaded, handed to the sub-updater")
            machine.wait(timeout=30)
            tell("the sub-updater has outlived crond, and rebooted")
        assert "crond has ended, and so has the client" in read(root / "var/lib/mender/sub-updater.log")
        assert server.status_history(deployment) == ["downloading", "installing"]
        asked = len(server.requests)
        with booted(root):
            server.wait_for(final_status)
            tell("booted again: the new release reported success")
            assert server.status_history(deployment) == ["downloading", "installing", "success"]
            until(
                lambda: ("next", 204) in [brief(one) for one in server.requests[asked:]], "third tick", TICK
            )
            tell("third tick: the inventory sent, nothing more to install")
        # The result came before any question.
        assert brief(server.requests[asked]) == ("status", 204)
        assert server.status_history(deployment) == ["downloading", "installing", "success"]
        attributes = server.device().attributes
        assert attributes["artifact_name"] == "release-2"
        assert attributes["shell"] == f"{BUSYBOX}/sh"
        assert attributes["boot"] == read(root / "run/boot_id").strip()
        assert not (root / "var/lib/mender/update.lock").exists()
    with capsys.disabled():
        print("\n" + "\n".join(told))
    # Pending, offline, updating or at rest: nothing is ever printed, so nothing is ever mailed.
    mailed = [line for line in read(mails).splitlines() if line and not line.startswith(("To:", "Subject:"))]
    assert set(mailed) == {"this is mailed"}
    log = read(messages)
    assert "127.0.0.1:9" in log
    assert "daemon.notice mender-oneshot" in log
    assert "Traceback" not in log


@pytest.fixture
def board(root: Path, tmp_path: Path) -> Iterator[Board]:
    """A system that has no sub-updater and that the server has accepted; it boots again after a reboot."""
    need_root("mender-artifact")
    (root / "usr/share/mender/install").unlink()
    write(root / "etc/init.d/rcS", RCS_WITHOUT_SUB_UPDATER, 0o755)
    # Modules, scripts and checks find busybox's tools, and its reboot, before Debian's.
    subprocess.run(["chroot", root, f"{BUSYBOX}/busybox", "--install", "-s", "/usr/local/sbin"], check=True)
    prepare(root)
    line = read(REPO / "cron/busybox-crontab").splitlines()[-1]
    write(root / "var/spool/cron/crontabs/root", OFTEN.format(command=line.removeprefix("* * * * * ")))
    with DevServer(tmp_path / "server", accept_all=True) as server, contextlib.ExitStack() as power:
        copy(server.ca, root / "etc/mender/server.pem")
        settings = {**SETTINGS, "ServerURL": server.url, "ServerCertificate": "/etc/mender/server.pem"}
        write(root / "etc/mender/mender.conf", json.dumps(settings))
        subprocess.run(["chroot", root, "/usr/local/bin/mender-oneshot", "auth"], check=True)
        machines = [power.enter_context(booted(root))]

        def keep_on() -> None:
            if machines[-1].poll() is not None:
                machines.append(power.enter_context(booted(root)))

        yield Board(root, server, tmp_path, keep_on, seconds=4 * TICK)


def test_updates_are_installed_without_any_other_program(board: Board) -> None:
    """An update without a reboot, one that is rolled back, and one that needs a reboot."""
    scripts = ("ArtifactInstall_Enter", "ArtifactCommit_Leave")
    deployment = board.install("release-2", "single-file", release("level=2\n"), scripts=scripts)
    assert board.server.status_history(deployment) == [*WITHOUT_REBOOT, "success"]
    assert (board.text(RELEASE), board.calls()) == ("level=2\n", list(scripts))
    deployment = board.install("release-3", "single-file", release("bad"))
    assert board.server.status_history(deployment) == [*WITHOUT_REBOOT, "failure"]
    assert board.text(RELEASE) == "level=2\n"
    assert "the application of this release does not start" in last_message(board, deployment)
    # The story ends in the syslog of the run that cron started, with the reason.
    log = read(board.root / "var/log/messages")
    (told,) = [line for line in log.splitlines() if f"Reported failure for deployment {deployment}: " in line]
    assert "daemon.warn mender-oneshot" in told
    assert "the application of this release does not start" in told
    assert "Installed release-2." in log
    deployment = board.install("release-4", "by-itself", {"release": "level=4"})
    assert board.server.status_history(deployment) == [*WITH_REBOOT, "success"]
    assert board.calls() == [
        *("Download", "ArtifactInstall", "ArtifactReboot", "ArtifactVerifyReboot", "ArtifactCommit"),
        "Cleanup",
    ]
    assert board.provides()["artifact_name"] == "release-4"


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "reboot"),
    [("automatic", ([], [])), ("by-itself", (["ArtifactReboot"], ["ArtifactRollbackReboot"]))],
)
def test_a_release_that_is_not_healthy_is_rolled_back_by_a_reboot(
    board: Board, kind: str, reboot: tuple[list[str], list[str]]
) -> None:
    deployment = board.install("release-2", kind, {"release": "bad"})
    assert board.server.status_history(deployment) == [*WITH_REBOOT, "failure"]
    assert board.calls() == [
        *("Download", "ArtifactInstall", *reboot[0], "ArtifactVerifyReboot"),
        *("ArtifactRollback", *reboot[1], "ArtifactVerifyRollbackReboot"),
        *("ArtifactFailure", "Cleanup"),
    ]
    assert board.text(RELEASE) == "first\n"
    assert "the application of this release does not start" in last_message(board, deployment)


def release(text: str) -> dict[str, str | bytes]:
    """Return the payload of the module `single-file` for a release."""
    return {"dest_dir": "/opt", "filename": "release", "permissions": "644", "release": text}


def last_message(board: Board, deployment: str) -> str:
    """Return the last line of the log that the server has of a deployment."""
    message: str = (board.server.log(deployment) or [])[-1]["message"]
    return message


def brief(seen: Seen) -> tuple[str, int | None]:
    return seen.path.rpartition("/")[2], seen.status
