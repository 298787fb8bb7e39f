"""Releases that must fail, and what must hold of a board that has tried one."""

import hashlib
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from . import disk, packages, root_fs, slots
from .build import NEW, Built, make_artifact
from .judge import SETTLE_SECONDS, Boots, at_rest, boots, history_problems
from .machine import Machine, cpu_seconds
from .mirror import mirror
from .root_fs import Change, replace
from .server import BoardServer
from .update import add_artifact, checks_for_updates, deploy, update, wait_final, wait_idle

_CONFIGURATION = "etc/mender/mender.conf"
FAILURE = frozenset({"failure"})
_NO_START = r"the boot loader tried /dev/vda3, and returned because that system did not start"


def _without_kernel(root: Path) -> None:
    """Leave GRUB no kernel that it can load."""
    (root / "boot/vmlinuz").write_bytes(bytes(4096))


def _halting_kernel(root: Path) -> None:
    """Give GRUB a kernel that it loads, and that halts when it cannot decompress itself."""
    kernel = root / "boot/vmlinuz"
    content = bytearray(kernel.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4096] = bytes(4096)
    kernel.write_bytes(content)


def _hanging(root: Path) -> None:
    """Hang in the start script, before anything is mounted."""
    replace(root / "etc/init.d/start", "#!/bin/sh\n", "#!/bin/sh\nwhile :; do sleep 3600; done\n")


def _idle(root: Path) -> None:
    """Start no mender-oneshot."""
    (root / "var/spool/cron/crontabs/root").unlink(missing_ok=True)
    replace(root / "usr/local/sbin/updates", "while :; do\n", "while :; do\n    sleep 3600; continue\n")
    replace(root / "usr/local/sbin/feed-watchdog", "TRIAL=300", "TRIAL=60")


def _without_server(root: Path) -> None:
    """Name a server that does not exist, and give up after a minute."""
    replace(root / _CONFIGURATION, "https://10.0.2.100", "https://10.0.2.99")
    replace(root / _CONFIGURATION, "{\n", '{\n  "CommitTimeoutSeconds": 60,\n')


def _unhealthy(root: Path) -> None:
    """Fail a health check."""
    check = root / "etc/mender/checks.d/pump"
    check.parent.mkdir(parents=True)
    check.write_text("#!/bin/sh\necho 'the pump does not answer' >&2\nexit 1\n")
    check.chmod(0o755)


class Release(NamedTuple):
    """What is wrong with a release, and the reason with which the log of its deployment must end.

    With `hangs`, only a watchdog ends its trial.
    """

    change: Change
    reason: str
    hangs: bool = False


RELEASES = {
    "kernel": Release(_without_kernel, _NO_START),
    "halt": Release(_halting_kernel, _NO_START, hangs=True),
    "hang": Release(_hanging, _NO_START, hangs=True),
    "idle": Release(_idle, _NO_START, hangs=True),
    "server": Release(_without_server, r"could not log in within 60 s .*10\.0\.2\.99"),
    "check": Release(_unhealthy, "health check /etc/mender/checks.d/pump failed: .*the pump does not answer"),
}


def run(built: Built, names: Sequence[str]) -> int:
    """Deploy these releases to one board, one after the other, then a good one; return an exit code."""
    directory = build(built, names)
    board = directory / "board.img"
    disk.copy(built.disk, board)
    wrong: list[str] = []
    # On a busy machine a good boot may take longer than the watchdog waits.
    watchdog = any(RELEASES[name].hangs for name in names)
    with BoardServer(directory / "server") as server:
        with Machine(board, server.ports, show=True, watchdog=watchdog) as machine:
            for name in names:
                add_artifact(server, directory / f"bad-{name}.mender")
                found = _fail(server, machine, built, board, name)
                wrong += [f"{name}: {problem}" for problem in found]
            deployment = update(server, machine, built.artifact(NEW))
        status = server.status(deployment)
    wrong += [f"then: {problem}" for problem in slots.problems_of(board, built, status)]
    if status != "success":
        wrong.append(f"then: the good update ended with {status}: {server.log(deployment)}")
    print(f"\n{len(names)} releases that must fail, {cpu_seconds():.0f} s of CPU time.")
    print("\n".join(wrong) or "Each of them failed, and the next good one succeeded.")
    return 1 if wrong else 0


def _fail(server: BoardServer, machine: Machine, built: Built, board: Path, name: str) -> list[str]:
    """Deploy a release that must fail, and return what is wrong with what became of it; raise TimedOut."""
    deployment = deploy(server, f"bad-{name}")
    at = len(machine.console)
    wait_final(server, deployment, machine, SETTLE_SECONDS)
    seen = len(server.requests)
    machine.wait_until(lambda _: checks_for_updates(server, seen), "check for an update", 600.0)
    wait_idle(machine)
    counted = boots(machine.console[at:])
    history = server.status_history(deployment)
    log = [str(line.get("message", "")) for line in server.log(deployment) or []]
    print(f"\nThe server received {', '.join(history)} after {counted.total} boots, and this log:")
    print("".join(f"    {line}\n" for line in log), flush=True)
    problems = history_problems(history, FAILURE, bool(log))
    problems += log_problems(log, RELEASES[name].reason)
    problems += boot_problems(counted)
    problems += offer_problems(checks_for_updates(server, seen))
    problems += slots.problems_of(board, built, "failure")
    return problems + at_rest(machine)


def log_problems(log: Sequence[str], reason: str) -> list[str]:
    """Return what is wrong with the log of a failure: its last line must give the reason."""
    last = log[-1] if log else ""
    return [] if re.search(reason, last) else [f"the log does not end with {reason!r}, but with {last!r}"]


def offer_problems(statuses: Sequence[int]) -> list[str]:
    """Return what is wrong with the responses to requests for an update after the failure."""
    return ["it was offered again"] if 200 in statuses else []


def boot_problems(counted: Boots) -> list[str]:
    """Return what is wrong with the number of boots from the old system back to it.

    If the boot loader has returned, the installer reboots again, as the Mender client does.
    """
    return [] if 2 <= counted.total <= 3 else [f"{counted.total} boots from the old system back to it"]


def build(built: Built, names: Sequence[str]) -> Path:
    """Build what is missing of these releases, and return the directory of their files."""
    digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    directory = built.directory / f"failing-{digest[:12]}"
    if not directory.exists():
        shutil.copytree(built.server, directory / "server", ignore=shutil.ignore_patterns("artifacts"))
    for name in names:
        artifact, image = directory / f"bad-{name}.mender", directory / f"bad-{name}.ext4"
        if artifact.exists():
            continue
        print(f"Building a release that must fail: {name} ...", flush=True)
        ca = directory / "server/ca.pem"
        root_fs.build(image, packages.archive(mirror()), ca, f"bad-{name}", RELEASES[name].change)
        make_artifact(artifact, image, f"bad-{name}")
        image.unlink()
    return directory
