"""Writes `docs/reference/json.md` from the schema of `--json`."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from helpers.device import REPO
from mender_oneshot import json_members, json_schema
from mender_oneshot.json_members import Schema

DOCUMENT = REPO / "docs" / "reference" / "json.md"

_ID = "3d2a5e2c-6a43-4d0e-9d3c-7d1c4e0f5b11"
_CHECK = {
    "id": "device-type",
    "name": "device type",
    "ok": True,
    "level": "ok",
    "message": "The device type is raspberrypi4.",
    "command": None,
}
_ACCEPTED = {
    "artifact_name": "release-2",
    "artifact_group": "",
    "device_types": ["raspberrypi4"],
    "payload_type": "single-file",
    "signed": True,
    "provides": {"rootfs-image.single-file.version": "release-2"},
    "depends": {},
    "clears_provides": ["rootfs-image.single-file.*"],
    "files": [{"name": "app", "size": 1024, "sha256": "9f64a747e1b97f131fabb6b447296c9b6f0201e7..."}],
}
_INSTALLED = {"artifact_name": "release-2", "phase": "Done"}
_ENDED = {
    "deployment": _ID,
    "artifact_name": "release-2",
    "status": "failure",
    "began": 1764150000.5,
    "ended": 1764150060.25,
    "size": 1048576,
    "why": "The health check /etc/mender/checks.d/app failed: it ended with 1.",
}


def _step(command: str, word: str, message: str, **facts: Any) -> dict[str, Any]:
    return {"step": command, "outcome": word, "message": message, **facts}


EXAMPLES: dict[str, dict[str, Any]] = {
    "run": {
        "steps": [
            _step(
                "check-update",
                "update",
                f"There is an update: release-2 (deployment {_ID}).",
                deployment=_ID,
                artifact_name="release-2",
            ),
        ],
    },
    "bootstrap": _step("bootstrap", "created", "Created a new device key /var/lib/mender/mender-agent.pem."),
    "auth": _step(
        "auth",
        "authorized",
        "hosted.mender.io has accepted this device.",
        server="https://hosted.mender.io",
    ),
    "send-inventory": _step("send-inventory", "sent", "Sent the inventory: 12 attributes.", attributes=12),
    "check-update": _step("check-update", "nothing", "There is no update for this device.", deployment=None),
    "download": _step(
        "download",
        "downloaded",
        "Downloaded release-2, 1.0 MB.",
        deployment=_ID,
        artifact_name="release-2",
        bytes=1048576,
    ),
    "install": _step(
        "install",
        "handed-off",
        "Handed release-2 to the built-in installer.",
        deployment=_ID,
        artifact_name="release-2",
    ),
    "commit": _step("commit", "installed", "Installed release-2.", **_INSTALLED),
    "rollback": _step("rollback", "rolled-back", "Rolled back release-2.", **_INSTALLED),
    "resume": _step("resume", "installed", "Installed release-2.", **_INSTALLED),
    "verify": _step(
        "verify", "accepted", "release-2 would be accepted; its signature is valid.", **_ACCEPTED
    ),
    "extract": _step(
        "extract",
        "extracted",
        "Extracted 1 file of release-2 to /tmp/new.",
        directory="/tmp/new",
        **_ACCEPTED,
    ),
    "report": _step(
        "report",
        "delivered",
        f"Reported success for deployment {_ID}.",
        deployment=_ID,
        status="success",
    ),
    "terminal": _step(
        "terminal", "served", "Served 1 session in 340 s.", sessions=1, connections=1, seconds=340
    ),
    "status": {
        "device_type": "raspberrypi4",
        "device_type_problem": None,
        "artifact_name": "release-1",
        "servers": ["https://hosted.mender.io"],
        "authorized": True,
        "deployment": {"id": _ID, "artifact_name": "release-2"},
        "downloaded_bytes": 524288,
        "artifact_bytes": 1048576,
        "installing": None,
        "installation": None,
        "reported": None,
        "paused": [],
        "queued_results": [],
        "last_result": {"deployment": _ID, "status": "failure", "outcome": "delivered"},
        "last_update": _ENDED,
        "checked_at": 1764150000.5,
        "inventory_sent_at": 1764140000.25,
        "next_step": "download",
        "coming_step": "download",
        "next_in_seconds": 0,
        "failures": {"download": 2},
        "failure_reasons": {"download": "Connection lost; the next attempt will resume."},
        "failing_since": {"download": 1764150010.0},
        "trouble": None,
    },
    "show-artifact": {"artifact_name": "release-1"},
    "show-provides": {"provides": {"artifact_name": "release-1"}},
    "history": {"deployments": [_ENDED]},
    "log": {
        "deployment": _ID,
        "log": [
            {"timestamp": "2025-11-26T09:40:00Z", "level": "info", "message": "release-2 verified."},
        ],
    },
    "doctor": {
        "summary": {"passed": 18, "failed": 0, "warnings": 1, "skipped": 0},
        "checks": [_CHECK],
        "bundle": None,
    },
    "setup": {
        "outcome": "pending",
        "message": "hosted.mender.io has not accepted this device yet; accept it under Devices > Pending.",
        "files": [{"path": "/etc/mender/mender.conf", "replaced": False, "copy": ""}],
        "kept": [],
        "schedule": "systemd",
        "undo": ["rm -f /etc/mender/mender.conf"],
        "checks": [_CHECK],
    },
}
DRY_RUN = {
    "would_run": "check-update",
    "due": [{"step": "check-update", "in_seconds": 0}, {"step": "send-inventory", "in_seconds": 10800}],
}
FAILURE = {
    "step": "auth",
    "reason": "not_accepted",
    "error": "hosted.mender.io has not accepted this device yet; accept it under Devices > Pending.",
}

INTRODUCTION = """\
# The output of `--json`

With `--json`, before or after the command, `mender-oneshot` prints one JSON object on stdout and
nothing else. Members are added in later versions; none is changed or removed while `schema` is 1,
so ignore the members that you do not need. Sentences (`message`, `error`, `warnings`) are for
people and change.

This page is generated from the schema in the package by `PYTHONPATH=tests .venv/bin/python -m
helpers.json_page`. In a checkout, `python3 -m mender_oneshot.json_schema COMMAND` prints the JSON
Schema of a command. The tests compare the output of each command that they run with it.

Nothing is printed if the process is killed, or has to be ended after its time limit because a
system call hangs; `--help` and `--version` print text.

## Members of every object

"""
FAILURES = """
## Failures

If a command fails, the object has these members instead of its own, with the exit code that the
table in [mender-oneshot(1)](../man/mender-oneshot.1) explains. `doctor` and `setup` print their own
members also if a check fails. `run` has `steps`, too: the steps that were performed before the
failure.

"""
REASONS = """
The values of `reason`. While `schema` is 1, a word is added only for a new kind of failure.

| `reason` | meaning |
|---|---|
"""
OUTCOMES = """
## Commands that perform a step

`outcome` is one of the words in the table; the other members depend on it. `run` prints an array
`steps` of objects with the same members, without those of every object; there each step may also
have the outcome `other-device`.

| step | outcome | other members |
|---|---|---|
"""


def document() -> str:
    """Return the page."""
    text = INTRODUCTION + _table(json_members.ALWAYS) + FAILURES + _table(json_members.FAILURE)
    text += "\n" + _example("auth", FAILURE, 77) + REASONS
    text += "".join(f"| `{word}` | {meaning} |\n" for word, meaning in json_members.REASONS.items())
    text += OUTCOMES + "".join(_outcomes())
    text += "\nThese members are:\n\n" + _table(
        {name: one for name, one in json_members.FACTS.items() if name != "no deployment"}
    )
    text += "\n| `outcome` | meaning |\n|---|---|\n"
    text += "".join(
        f"| `{word}` | {meaning} |\n"
        for word, meaning in json_members.OUTCOMES.items()
        if word not in ("announced", "paused")
    )
    for command in sorted({*json_schema.COMMANDS, "run"} - {"announce"}):
        text += f"\n### {command}\n\n" + _example(command, EXAMPLES[command])
    text += "\n### run --dry-run\n\n" + _table(json_members.DRY_RUN) + "\n" + _example("run", DRY_RUN)
    text += "\n## Commands that show something\n"
    for command, members in json_members.SHOWN.items():
        text += f"\n### {command}\n\n" + _table(members) + "\n" + _example(command, EXAMPLES[command])
    return text


def example(facts: Mapping[str, Any], code: int = 0) -> dict[str, Any]:
    """Return a whole object."""
    return {"schema": 1, "exit_code": code, **facts, "warnings": []}


def _example(command: str, facts: Mapping[str, Any], code: int = 0) -> str:
    return f"```json\n{json.dumps(example(facts, code), indent=2)}\n```\n"


def _outcomes() -> Iterator[str]:
    commands = {f"`{name}`": outcomes for name, outcomes in json_schema.COMMANDS.items()}
    del commands["`announce`"]
    of_run = {f"`{name}` of `run`": json_schema.STEPS[name] for name in ("deliver", "tidy", "resume")}
    for step, outcomes in {**commands, **of_run}.items():
        for word, facts in outcomes.items():
            names = ", ".join(map(_member, facts))
            yield f"| {step} | `{word}` | {names} |\n".replace("|  |", "| |")


def _member(fact: str) -> str:
    name = fact.removesuffix("?")
    if name == "no deployment":
        return "`deployment` (null)"
    return f"`{name}`" + (" (or null)" if fact == "deployment?" else " (or none)" if fact != name else "")


def _table(members: Mapping[str, Schema], within: str = "") -> str:
    head = "" if within else "| member | type | meaning |\n|---|---|---|\n"
    return head + "".join(_rows(members, within))


def _rows(members: Mapping[str, Schema], within: str) -> Iterator[str]:
    for name, schema in members.items():
        yield f"| `{within}{name}` | {_type(schema)} | {_meaning(schema)} |\n".replace("|  |", "| |")
        for inner, prefix in _inner(schema):
            yield _table(inner, f"{within}{name}{prefix}.")


def _inner(schema: Schema) -> Iterator[tuple[Mapping[str, Schema], str]]:
    for one in (schema, *schema.get("anyOf", ())):
        if "properties" in one:
            yield one["properties"], ""
    if "properties" in schema.get("items", {}):
        yield schema["items"]["properties"], "[]"


def _type(schema: Schema) -> str:
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return "string"
    if "anyOf" in schema:
        return "object or null"
    kind: str | list[str] = schema["type"]
    return " or ".join([kind] if isinstance(kind, str) else kind)


def _meaning(schema: Schema) -> str:
    words = ""
    if "enum" in schema and len(schema["enum"]) < 10:
        words = ": " + ", ".join(f"`{word}`" for word in schema["enum"])
    description: str = schema.get("description", "")
    return (description + words).removeprefix(": ")


if __name__ == "__main__":
    DOCUMENT.write_text(document())
