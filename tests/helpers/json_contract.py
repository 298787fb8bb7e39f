"""Compares what a command prints with `--json` with its schema; every member must be described there."""

import functools
import json
from collections.abc import Sequence
from typing import Any

from jsonschema import Draft202012Validator

from mender_oneshot import json_schema


def check(words: Sequence[str], code: int, out: str) -> None:
    """Fail unless the output of a command line with `--json` is one object that its schema describes."""
    answer: Any = json.loads(out)
    command = next((word for word in words if word in json_schema.NAMES), "")
    errors = [problem.message for problem in _validator(command, "error" in answer).iter_errors(answer)]
    assert not errors, (words, answer, errors)
    assert answer["exit_code"] == code, (words, code, answer)


@functools.cache
def _validator(command: str, failed: bool) -> Draft202012Validator:
    schema = json_schema.failing(command) if failed else json_schema.succeeding(command)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(closed(schema))


def closed(schema: Any) -> Any:
    """Return a schema that accepts no member that it does not describe."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    members = {name: closed(value) for name, value in schema.items()}
    if "required" in schema and isinstance(schema.get("properties"), dict):
        members["additionalProperties"] = False
    return members
