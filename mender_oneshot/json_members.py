"""The members of the JSON objects that commands print, each with its type and its meaning."""

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]

REASONS = {
    "usage": "The command line is invalid.",
    "nothing_in_progress": "There is no update to download, install, commit or report, and no such log.",
    "artifact_rejected": "The artifact is corrupt, not signed by a trusted key, or not for this device.",
    "rejected": "The server rejected the request, or the update cannot be installed; a retry does not help.",
    "tls": "The certificate of the server could not be verified.",
    "installation_failed": "The installation by hand failed; `error` has whether it was undone.",
    "no_space": "A file system is full, or a file cannot be created.",
    "disk": "A file cannot be read or written.",
    "network": "No answer came, or the connection was lost.",
    "server_busy": "The server or the storage answered 408, 429 or 5xx.",
    "server_pause": "A server has asked for a pause that is not over.",
    "not_a_mender_server": "A gateway, firewall or portal answered instead of the Mender server.",
    "link_expired": "The link of the artifact has expired; the next check gets a new one.",
    "script_pause": "A state script of the device has asked for a pause.",
    "not_yet": "An update is being installed, or its result must be sent first.",
    "out_of_memory": "There is not enough memory.",
    "temporary": "Something else prevents the step for now.",
    "lock_held": "Another invocation is running.",
    "deadline": "The time limit of the command was reached.",
    "protocol": "The server sent an invalid answer.",
    "not_accepted": "The server has not accepted this device yet.",
    "token": "The server rejects a token that it has just issued.",
    "config": "The configuration, or a file or library that the device must have, is missing or invalid.",
    "interrupted": "Ctrl-C was pressed.",
    "bug": "A bug of the program; stderr has the traceback.",
}
"""The values of `reason`, a closed list."""

OUTCOMES = {
    "created": "A new device key was created.",
    "kept": "There is a key, or a valid token, already.",
    "authorized": "The server has accepted the device.",
    "sent": "The inventory was sent.",
    "unchanged": "The inventory has not changed, so it was not sent.",
    "update": "There is an update.",
    "nothing": "There is no update.",
    "withdrawn": "The server no longer has the deployment, so it was dropped.",
    "waiting": "The step has to wait: for a retry of a failed deployment, a sub-updater, or your decision.",
    "over": "The server offers a deployment that has ended; its result will be sent again.",
    "conflict": "The server failed the deployment because the device type or the artifact name changed.",
    "downloaded": "The artifact is complete.",
    "handed-off": "The sub-updater or the built-in installer was started.",
    "installed": "The artifact is installed.",
    "reboot-needed": "The artifact is installed, and needs a reboot before the commit.",
    "stopped": "The installation stopped where `--stop-before` asked for it.",
    "rolled-back": "The installation was rolled back.",
    "accepted": "The device would accept the artifact.",
    "extracted": "The payload files were extracted.",
    "delivered": "The server has the result.",
    "queued": "The result is stored, and a later run sends it.",
    "already": "The same result was reported before.",
    "aborted": "The server has aborted the deployment.",
    "void": "The server has no such deployment, so the result was dropped.",
    "refused": "The server rejected the result, or its log, too often, so it was dropped.",
    "announced": "The server has the status.",
    "paused": "The server has asked for a pause, so the status was not sent.",
    "adopted": "An update that the state did not have is being installed.",
    "swept": "The files of the last update were removed.",
    "taken-back": "The sub-updater was never started, so the update is installed again.",
    "gave-up": "The sub-updater did not report in time, so the update has failed.",
    "served": "The remote terminal has ended.",
    "other-device": "The identity has changed, so the state was replaced.",
}
"""The values of `outcome`."""


def typed(kind: str, description: str = "") -> Schema:
    """Return the schema of a value of one type."""
    return {"type": kind, "description": description} if description else {"type": kind}


def text(description: str = "") -> Schema:
    """Return the schema of a string."""
    return typed("string", description)


def time(description: str) -> Schema:
    """Return the schema of a time."""
    return typed("number", f"{description}; in seconds since 1970")


def or_null(schema: Schema, meaning: str) -> Schema:
    """Return the schema of a value that may be null, with the meaning of null."""
    types = [schema["type"], "null"]
    return {**schema, "type": types, "description": f"{schema.get('description', '')}; null: {meaning}"}


def array(items: Schema, description: str) -> Schema:
    """Return the schema of an array."""
    return {"type": "array", "items": items, "description": description}


def mapping(values: Schema, description: str) -> Schema:
    """Return the schema of an object whose names are data."""
    return {"type": "object", "additionalProperties": values, "description": description}


def members_of(members: Mapping[str, Schema], *optional: str, description: str = "") -> Schema:
    """Return the schema of an object; members that are not `optional` are always there."""
    required = [name for name in members if name not in optional]
    described = {"description": description} if description else {}
    return {"type": "object", **described, "properties": dict(members), "required": required}


ALWAYS: dict[str, Schema] = {
    "schema": {"const": 1, "description": "the version of this contract"},
    "exit_code": typed("integer", "the exit code of the command"),
    "warnings": array(text(), "what is logged as a warning or an error meanwhile, at most 100 lines"),
}
FAILURE: dict[str, Schema] = {
    "step": or_null(
        text("the step that failed, which may be another one than the command, such as `auth`"), "none"
    ),
    "reason": {"enum": list(REASONS), "description": "why, as one of the words in the table of reasons"},
    "error": text("the sentence for people"),
}

_FILE = members_of({"name": text(), "size": typed("integer"), "sha256": text()})
FACTS: dict[str, Schema] = {
    "server": text("the URL of the server that accepted the device"),
    "attributes": typed("integer", "how many attributes the inventory has"),
    "deployment": text("the id of the deployment"),
    "no deployment": {"type": "null", "description": "there is no deployment to carry out"},
    "status": text("the status, `success` or `failure`, or one on the way"),
    "bytes": typed("integer", "the size of the artifact"),
    "phase": text("the phase of the installation"),
    "directory": text("the new directory"),
    "artifact_name": text("the name of the artifact"),
    "artifact_group": text('its group, or `""`'),
    "device_types": array(text(), "the device types it is for"),
    "payload_type": or_null(text("the type of its payload"), "no payload"),
    "signed": typed("boolean", "whether its signature was checked"),
    "provides": mapping(text(), "what it provides"),
    "depends": mapping(array(text(), ""), "what it depends on"),
    "clears_provides": array(text(), "patterns of what it removes from the provides"),
    "files": array(_FILE, "its payload files"),
    "sessions": typed("integer", "how many sessions were served"),
    "connections": typed("integer", "how many connections were made"),
    "seconds": typed("integer", "how long the terminal was served"),
}
"""The members of outcomes; `no deployment` is the member `deployment`, null."""

_CHECK = members_of(
    {
        "name": text("the name of the check"),
        "ok": typed("boolean", "false if the check failed"),
        "message": text("what was found, and what to do"),
        "id": text("the name of the check without blanks"),
        "level": {"enum": ["ok", "warning", "failed", "skipped"], "description": "how serious it is"},
        "command": or_null(text("the command that fixes the problem"), "none"),
    }
)
_SUMMARY = members_of(
    {
        "passed": typed("integer", "the checks that found nothing wrong"),
        "failed": typed("integer", "the checks that failed"),
        "warnings": typed("integer", "the checks that gave a warning"),
        "skipped": typed("integer", "the checks that were skipped"),
    },
    description="how many checks there were of each kind",
)
_BUNDLE = members_of(
    {"file": text("its path"), "bytes": typed("integer", "its size")},
    description="what `--bundle` has written",
)
_PAUSE = {
    "paused_by": text("the state script that asked for a pause"),
    "asked_again_at": time("when it is asked again"),
    "paused_until": time("when the pause ends at the latest"),
}
_RESULT_OF = {"deployment": FACTS["deployment"], "status": text("`success` or `failure`")}
_PAST = members_of(
    {
        "deployment": FACTS["deployment"],
        "artifact_name": FACTS["artifact_name"],
        "status": text("`success`, `failure` or `aborted` (by the server)"),
        "began": time("when the deployment was found, or 0"),
        "ended": time("when it ended, or 0"),
        "size": typed("integer", "the bytes of the artifact, or -1"),
        "why": text("the last line of its log, if it failed"),
    }
)
_INSTALLATION = members_of(
    {
        "artifact_name": FACTS["artifact_name"],
        "deployment": or_null(FACTS["deployment"], "by hand"),
        "phase": FACTS["phase"],
        "state": {"enum": ["waiting", "paused", "running", "stopped", "interrupted", "starting"]},
        "since": or_null(time("when the phase began"), "unknown"),
        "reboot_needed": typed("boolean"),
        **{name: or_null(schema, "no pause") for name, schema in _PAUSE.items()},
        "failed": typed("boolean"),
        "reason": or_null(text("the first error, as a sentence"), "none"),
    }
)
STATUS: dict[str, Schema] = {
    "device_type": or_null(text("the device type"), "not set"),
    "device_type_problem": or_null(text("why there is no device type"), "there is one"),
    "artifact_name": or_null(text("the release that is installed"), "it cannot be read"),
    "servers": array(text(), "the URLs of the configured servers"),
    "authorized": or_null(typed("boolean", "whether there is a valid token"), "only root can read it"),
    "deployment": {
        "description": "the deployment under way, or null",
        "anyOf": [members_of({"id": text(), "artifact_name": text()}), {"type": "null"}],
    },
    "downloaded_bytes": typed("integer", "the bytes of the artifact on the device"),
    "artifact_bytes": or_null(typed("integer", "the size of the artifact"), "unknown"),
    "installing": or_null(text('the deployment that is being installed, `""` if its id is unknown'), "none"),
    "installation": {
        "description": "the installation by the built-in installer, or null",
        "anyOf": [_INSTALLATION, {"type": "null"}],
    },
    "reported": or_null(text("the result of that deployment, if it was reported"), "not yet"),
    "paused": array(members_of({"step": text(), **_PAUSE}), "the steps that a state script has paused"),
    "queued_results": array(members_of(_RESULT_OF), "results that wait to be sent"),
    "last_result": {
        "description": "the last result, or null; `outcome` is what the server answered to it",
        "anyOf": [
            members_of({**_RESULT_OF, "outcome": or_null(text("the answer"), "none yet")}),
            {"type": "null"},
        ],
    },
    "last_update": {
        "description": "the last deployment that ended, as in `history`, or null",
        "anyOf": [_PAST, {"type": "null"}],
    },
    "checked_at": or_null(
        time("when the server was last asked for an update; after a reboot, perhaps an earlier check"),
        "never",
    ),
    "inventory_sent_at": or_null(time("when the inventory was last sent"), "never"),
    "next_step": or_null(text("the step that is due now"), "none"),
    "coming_step": or_null(text("the step that is due next"), "unknown"),
    "next_in_seconds": or_null(typed("integer", "the seconds until then"), "unknown"),
    "failures": mapping(typed("integer"), "steps that fail, and how often in a row"),
    "failure_reasons": mapping(text(), "and the sentence of their last failure"),
    "failing_since": mapping(typed("number"), "and since when, in seconds since 1970"),
    "trouble": or_null(text("what is wrong with the files of the state"), "nothing"),
}
_LOG_LINE = members_of({"timestamp": text("RFC 3339, in UTC"), "level": text(), "message": text()})
DRY_RUN: dict[str, Schema] = {
    "would_run": or_null(text("the step that a run would perform now"), "none"),
    "due": array(
        members_of(
            {
                "step": text(),
                "in_seconds": or_null(typed("integer", "0 is now"), "after the result of an update"),
            }
        ),
        "what comes next of an update, and of the inventory",
    ),
}
"""The members of `run --dry-run`."""

SHOWN: dict[str, dict[str, Schema]] = {
    "status": STATUS,
    "show-artifact": {"artifact_name": text("the release that is installed")},
    "show-provides": {"provides": mapping(text(), "what the device provides")},
    "history": {"deployments": array(_PAST, "the deployments, the newest first")},
    "log": {
        "deployment": FACTS["deployment"],
        "log": array(_LOG_LINE, "its lines, the oldest first"),
    },
    "doctor": {
        "summary": _SUMMARY,
        "checks": array(
            _CHECK, "the checks in their order; one with several problems is there several times"
        ),
        "bundle": or_null(_BUNDLE, "not asked for"),
    },
    "setup": {
        "outcome": {"enum": ["authorized", "pending", "written", "failed"], "description": "the result"},
        "message": text("the sentence for people"),
        "files": array(
            members_of({"path": text(), "replaced": typed("boolean"), "copy": text()}), "what was written"
        ),
        "kept": array(text(), "files that were right already"),
        "schedule": text('what was enabled, or `""`'),
        "undo": array(text(), "the commands that undo it"),
        "checks": array(_CHECK, "what `doctor` found"),
    },
}
"""The commands that show something, and its members."""
