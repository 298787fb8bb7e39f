"""The OpenAPI descriptions of the real server."""

from pathlib import Path
from typing import Any

import yaml

from helpers.device import REPO

DIRECTORY = REPO / "docs" / "reference" / "openapi"


def load(name: str) -> Any:
    """Return a description by its path in the directory, every `$ref` replaced by what it refers to."""
    return _resolved(yaml.safe_load((DIRECTORY / name).read_text()), DIRECTORY / name)


def _resolved(value: Any, file: Path) -> Any:
    if isinstance(value, list):
        return [_resolved(item, file) for item in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        name, _, pointer = value["$ref"].partition("#")
        target = (file.parent / name).resolve() if name else file
        found = yaml.safe_load(target.read_text())
        for part in pointer.strip("/").split("/"):
            found = found[part.replace("~1", "/").replace("~0", "~")]
        return _resolved(found, target)
    return {key: _resolved(item, file) for key, item in value.items()}
