"""The client's state file as tests see and change it: the only helper that depends on its schema."""

import json
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

STAMPS = ("at", "in_state", "checked_at", "inventory_at", "inventory_sent_at", "uptime")
EXPIRY = "expires"

DUE = {
    "check-update": ("checked_at",),
    "send-inventory": ("inventory_at",),
}
"""The time stamps that decide when a step is due."""


class Reported(NamedTuple):
    """A final status that the client has recorded."""

    deployment: str
    status: str


class StateFile:
    """Reads the state of a device, and changes it as time, a reboot or another invocation would."""

    data: Path
    root: Path

    @property
    def state(self) -> dict[str, Any]:
        """Return all of it; for tests of the file itself."""
        known: dict[str, Any] = json.loads((self.data / "mender-oneshot.json").read_text())
        return known

    def alter_state(self, **changes: Any) -> None:
        """Write members of the file; None removes one. For tests of the file itself."""
        known = self.state | changes
        known = {name: value for name, value in known.items() if value is not None}
        (self.data / "mender-oneshot.json").write_text(json.dumps(known))

    # Read.

    @property
    def last_check(self) -> Path:
        """Return the file in /run with the time of the last check that found nothing."""
        return Path(f"{self.root / 'run'}{self.data}/last-check")

    @property
    def token(self) -> str:
        """Return the token, "" if there is none."""
        return self._member("token", "jwt")

    @property
    def deployment(self) -> str:
        """Return the id of the deployment that is downloaded or to be installed, "" if there is none."""
        return self._member("deployment", "id")

    @property
    def artifact_id(self) -> str:
        """Return the id of its artifact."""
        return self._member("deployment", "artifact_id")

    @property
    def link(self) -> str:
        """Return the link to its artifact."""
        return self._member("deployment", "uri")

    @property
    def validator(self) -> str:
        """Return the ETag or the date of change that a range of the artifact is requested with."""
        return self._member("deployment", "etag") + self._member("deployment", "last_modified")

    @property
    def handed_off(self) -> str:
        """Return the id of the deployment that the sub-updater installs, "" if there is none."""
        return self._member("handoff", "deployment")

    @property
    def queued_results(self) -> list[Reported]:
        """Return the results that the server does not have yet, oldest first."""
        return [Reported(one["deployment"], one["status"]) for one in self.state.get("results", [])]

    @property
    def last_status(self) -> str:
        """Return the newest final status, "" if there is none."""
        return self._member("last_result", "status")

    @property
    def attempts(self) -> int:
        """Return how many times the last deployment has come to a final status."""
        return int(self.state["last_result"]["attempts"])

    @property
    def spread(self) -> float:
        """Return the place of the device in its fleet, 0 to 1."""
        return float(self.state["spread"])

    @property
    def failures(self) -> dict[str, int]:
        """Return how many times in a row each step has failed."""
        return {step: one["times"] for step, one in self.state.get("failures", {}).items()}

    @property
    def pauses(self) -> list[float]:
        """Return the length of each pause that a server has asked for, in seconds."""
        return [one["seconds"] for one in self.state.get("pauses", [])]

    def _member(self, part: str, name: str) -> str:
        value: str = self.state.get(part, {}).get(name, "")
        return value

    # Change.

    def forget_token(self) -> None:
        """Lose the token."""
        self.alter_state(token=None)

    def expire_token(self) -> None:
        """Make the token older than its life, by the device's clock and by the server's."""
        self.alter_state(token=self.state["token"] | {"at": 1.0, "lifetime": 604800.0, "expires": 604801.0})

    def set_spread(self, spread: float) -> None:
        """Have the device wait this share of the longest random delay after this boot, 0 to 1."""
        drawn = int(Path("/proc/sys/kernel/random/boot_id").read_text()[:8], 16) / 2**32
        self.alter_state(spread=(spread - drawn) % 1)

    def forget_owner(self) -> None:
        """Lose the digest of the identity, as in a state of a version that did not record it."""
        self.alter_state(owner=None)

    def forget_failures(self) -> None:
        """End the back-off of every step."""
        self.alter_state(failures=None)

    def fail(self, step: str, times: int = 1, why: str = "") -> None:
        """Record that a step has failed so many times in a row, the last time long ago."""
        failures = self.state.get("failures", {})
        self.alter_state(
            failures=failures | {step: {"times": times, "at": 1.0} | ({"why": why} if why else {})}
        )

    def forget_pauses(self) -> None:
        """End the pauses that servers have asked for."""
        self.alter_state(pauses=None)

    def forget_deployment(self) -> None:
        """Lose the deployment that is downloaded or to be installed."""
        self.alter_state(deployment=None)

    def change_deployment(self, **members: Any) -> None:
        """Change members of the deployment that is downloaded or to be installed."""
        self.alter_state(deployment=self.state["deployment"] | members)

    def change_link(self, uri: str) -> None:
        """Give the artifact another link."""
        self.change_deployment(uri=uri)

    def expire_link(self) -> None:
        """Make the link to the artifact older than its life."""
        self.change_deployment(expires=1.0)

    def make_due(self, *steps: str) -> None:
        """Let the interval of "check-update" or "send-inventory" pass."""
        self.alter_state(**{stamp: 1.0 for step in steps for stamp in DUE[step]})

    def forget_check(self) -> None:
        """Make the device one that has never checked for an update."""
        self.alter_state(checked_at=None)

    def make_hours_old(self, step: str, hours: float) -> None:
        """Let hours pass since "check-update" or "send-inventory"."""
        at = time.time() - hours * 3600
        self.alter_state(**dict.fromkeys(DUE[step], at))
        if step == "check-update" and self.last_check.exists():
            self.last_check.write_text(json.dumps({"in_state": at, "at": at, "sure": True}))

    def age_sent_inventory(self) -> None:
        """Let a day pass since the inventory was sent; an unchanged one is sent again."""
        self.alter_state(inventory_sent_at=1.0)

    def set_attempts(self, attempts: int) -> None:
        """Set how many times the last deployment has come to a final status."""
        self.alter_state(last_result=self.state["last_result"] | {"attempts": attempts})

    def set_refusals(self, refusals: int) -> None:
        """Set how many times the server has rejected the oldest queued result."""
        first, *others = self.state["results"]
        self.alter_state(results=[first | {"refusals": refusals}, *others])

    def age_last_result(self) -> None:
        """Let the grace after the last result pass: the files that it left are removed, a retry is due."""
        self.alter_state(last_result=self.state["last_result"] | {"at": 1.0})

    def age_hand_off(self, seconds: float) -> None:
        """Let the sub-updater take so many seconds more, by the uptime."""
        handoff = self.state["handoff"]
        self.alter_state(handoff=handoff | {"uptime": handoff["uptime"] - seconds})

    def end_last(self, deployment: str, status: str, **members: Any) -> None:
        """Record a final status that is not queued."""
        self.alter_state(last_result={"deployment": deployment, "status": status, "at": 1.0} | members)

    def hand_off(self, deployment: str, **members: Any) -> None:
        """Record that a deployment has been handed off, in place of the one to be installed."""
        self.alter_state(deployment=None, handoff={"deployment": deployment} | members)

    def begin_hand_off(self, **members: Any) -> str:
        """Record the hand-off of the deployment to be installed, as before the start; return its id."""
        deployment = str(self.state["deployment"]["id"])
        self.alter_state(handoff={"deployment": deployment} | members)
        return deployment

    def queue_results(self, results: Iterable[tuple[str, str]], at: float) -> None:
        """Record final statuses that the server does not have: (deployment, status), oldest first."""
        queue = [{"deployment": name, "status": status, "at": at} for name, status in results]
        self.alter_state(deployment=None, handoff=None, results=queue, last_result=queue[-1])

    def let_time_pass(self, seconds: float, *, expire: bool = True) -> None:
        """Put every time stamp back; without `expire`, not the end of a token's or a link's life.

        A state that is missing or corrupt stays as it is.
        """
        try:
            known = self.state
        except (OSError, ValueError):
            return
        if isinstance(known, dict):
            self.alter_state(**_earlier(known, seconds, (*STAMPS, EXPIRY) if expire else STAMPS))
        if self.last_check.exists():
            note = json.loads(self.last_check.read_text())
            self.last_check.write_text(json.dumps(_earlier(note, seconds, STAMPS)))

    def reboot(self) -> None:
        """Make the boot that the state, and the record of an installation, was written in the one before.

        A boot empties /run.
        """
        shutil.rmtree(self.root / "run", ignore_errors=True)
        known = self.state
        changed = {name: known[name] for name in ("deployment", "handoff") if known.get(name, {}).get("boot")}
        self.alter_state(**{name: part | {"boot": "the boot before"} for name, part in changed.items()})
        self._alter_installation(boot="the boot before")

    def end_pause_of_script(self) -> None:
        """Let the minute pass after which a state script of an installation is run again."""
        record = self.data / "installer.json"
        pause = json.loads(record.read_text())["pause"] if record.is_file() else None
        if pause:
            self._alter_installation(pause=pause | {"uptime": pause["uptime"] - 60})

    def _alter_installation(self, **changes: Any) -> None:
        record = self.data / "installer.json"
        if record.is_file():
            record.write_text(json.dumps(json.loads(record.read_text()) | changes))


def _earlier(value: Any, seconds: float, stamps: tuple[str, ...], name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _earlier(member, seconds, stamps, key) for key, member in value.items()}
    if isinstance(value, list):
        return [_earlier(member, seconds, stamps) for member in value]
    return value - seconds if name in stamps and value else value
