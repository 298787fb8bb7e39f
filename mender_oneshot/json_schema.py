"""The JSON Schema of what each command prints with `--json`; nothing but people and tests imports it.

`python -m mender_oneshot.json_schema COMMAND` prints one of them.
"""

import json
import sys
from collections.abc import Mapping

from . import json_members
from .json_members import Schema

Outcomes = dict[str, tuple[str, ...]]
"""The words of a step's outcome, and the members that come with each."""

_ARTIFACT = (
    *("artifact_name", "artifact_group", "device_types", "payload_type", "signed", "provides", "depends"),
    *("clears_provides", "files"),
)
_CHECKED: Outcomes = {
    "update": ("deployment", "artifact_name"),
    "nothing": ("no deployment",),
    "withdrawn": ("no deployment",),
    "waiting": ("no deployment",),
    "over": ("no deployment",),
    "conflict": ("no deployment",),
}
_BY_HAND: Outcomes = dict.fromkeys(
    ("installed", "waiting", "reboot-needed", "stopped", "rolled-back"), ("artifact_name", "phase")
)
_RESULT = ("deployment", "status")
_DELIVERED: Outcomes = {"delivered": _RESULT, "aborted": _RESULT, "void": _RESULT, "refused": _RESULT}

STEPS: dict[str, Outcomes] = {
    "bootstrap": {"created": (), "kept": ()},
    "auth": {"authorized": ("server",), "kept": ()},
    "send-inventory": {"sent": ("attributes",), "unchanged": ("attributes",)},
    "check-update": _CHECKED,
    "download": {
        **{word: facts for word, facts in _CHECKED.items() if word not in ("update", "withdrawn")},
        "downloaded": ("deployment", "artifact_name", "bytes?"),
        "withdrawn": ("deployment?",),
    },
    "install": {"handed-off": ("deployment", "artifact_name"), "withdrawn": ("deployment",)},
    "deliver": _DELIVERED,
    "tidy": {
        "adopted": (),
        "swept": (),
        "taken-back": (),
        "waiting": (),
        "gave-up": ("deployment",),
    },
    "resume": {"handed-off": ("deployment", "artifact_name"), "waiting": ()},
}
"""What `run` performs: the steps, each with its outcomes."""

COMMANDS: dict[str, Outcomes] = {
    **{name: STEPS[name] for name in ("bootstrap", "auth", "send-inventory", "check-update", "download")},
    "install": {**STEPS["install"], **_BY_HAND},
    "commit": _BY_HAND,
    "rollback": _BY_HAND,
    "resume": _BY_HAND,
    "verify": {"accepted": _ARTIFACT},
    "extract": {"extracted": ("directory", *_ARTIFACT)},
    "report": {**_DELIVERED, "queued": _RESULT, "already": ("deployment",), "other-device": ()},
    "announce": dict.fromkeys(("announced", "paused", "aborted"), _RESULT),
    "terminal": {"served": ("sessions", "connections", "seconds")},
}
"""The commands that perform one step, each with its outcomes."""

ANOTHER_DEVICE: Outcomes = {"other-device": ()}
"""An outcome of every step of `run`."""


def outcome(step: str, word: str, facts: tuple[str, ...]) -> dict[str, Schema]:
    """Return the members of one outcome of a step."""
    members: dict[str, Schema] = {
        "step": {"const": step},
        "outcome": {"const": word},
        "message": json_members.text("the sentence for people"),
    }
    for fact in facts:
        name = fact.removesuffix("?")
        key = "deployment" if name == "no deployment" else name
        schema = json_members.FACTS[name]
        if name == "deployment" and fact != name:
            schema = json_members.or_null(schema, "there is none any more")
        members[key] = schema
    return members


def _outcomes(step: str, outcomes: Outcomes, common: Mapping[str, Schema]) -> list[Schema]:
    return [
        json_members.members_of({**common, **outcome(step, word, facts)}, *_optional(facts))
        for word, facts in outcomes.items()
    ]


def _optional(facts: tuple[str, ...]) -> list[str]:
    return [fact.removesuffix("?") for fact in facts if fact.endswith("?") and fact != "deployment?"]


NAMES = (*COMMANDS, *json_members.SHOWN, "run")


def succeeding(command: str) -> Schema:
    """Return the schema of the object of a command that did not fail."""
    if command in json_members.SHOWN:
        return json_members.members_of({**json_members.ALWAYS, **json_members.SHOWN[command]})
    if command in COMMANDS:
        return {"anyOf": _outcomes(command, COMMANDS[command], json_members.ALWAYS)}
    performed = json_members.members_of({**json_members.ALWAYS, "steps": _run_steps()})
    return {"anyOf": [performed, json_members.members_of({**json_members.ALWAYS, **json_members.DRY_RUN})]}


def _run_steps() -> Schema:
    performed = [
        one for step, outcomes in STEPS.items() for one in _outcomes(step, outcomes | ANOTHER_DEVICE, {})
    ]
    return {"type": "array", "items": {"anyOf": performed}, "description": "the steps that succeeded"}


def failing(command: str = "") -> Schema:
    """Return the schema of the object of a command that failed; "" is an unknown command."""
    members = {**json_members.ALWAYS, **json_members.FAILURE}
    if command == "run":
        return json_members.members_of({**members, "steps": _run_steps()}, "steps")
    return json_members.members_of(members)


def schema(command: str) -> Schema:
    """Return the JSON Schema of a command."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"mender-oneshot {command} --json",
        "anyOf": [succeeding(command), failing(command)],
    }


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in NAMES:
        sys.exit(f"usage: python -m {__spec__.name} {'|'.join(sorted(NAMES))}")
    sys.stdout.write(json.dumps(schema(sys.argv[1]), indent=1) + "\n")
