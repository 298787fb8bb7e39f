"""Compute what a device provides after an artifact is installed, as the lines of `artifact_info`."""

from collections.abc import Iterator, Mapping

from .artifact.refusal import corrupt
from .artifact.verify import Verified

# As much of an artifact_info as `device.provides` reads, in bytes.
SIZE_MAX = 64 * 1024

_RESERVED = ("artifact_name", "artifact_group")


def after(
    installed: Mapping[str, str], name: str, group: str, provided: Mapping[str, str], clears: tuple[str, ...]
) -> dict[str, str]:
    """Return what a device provides after an artifact is installed; `artifact_name` comes first.

    What the artifact clears is left out, unless the artifact provides it again.
    """
    kept = {key: value for key, value in installed.items() if not _is_cleared(key, clears)}
    group = group or kept.get("artifact_group", "")
    provides = {"artifact_name": name} | ({"artifact_group": group} if group else {})
    for key, value in {**kept, **provided}.items():
        if key not in _RESERVED:
            provides[key] = value
    return provides


def artifact_info(installed: Mapping[str, str], artifact: Verified) -> bytes:
    """Return the content of `artifact_info` for a device with these provides and this artifact.

    Raises `errors.ArtifactRejected` if the result is too large to be read again.
    """
    return lines(after(installed, artifact.name, artifact.group, artifact.provides, artifact.clears_provides))


def lines(provides: Mapping[str, str]) -> bytes:
    """Return provides as `key=value` lines, without those that no line can hold.

    Raises `errors.ArtifactRejected` if the result is too large to be read again.
    """
    held = {key: value for key, value in provides.items() if key in _RESERVED or _is_line(key, value)}
    content = "".join(f"{key}={value}\n" for key, value in held.items()).encode()
    if len(content) > SIZE_MAX:
        raise corrupt(f"the device would provide more than {SIZE_MAX} bytes with it")
    return content


def unwritable(artifact: Verified) -> Iterator[str]:
    """Yield the keys that cannot be written as a `key=value` line, or that are reserved."""
    for key, value in artifact.provides.items():
        if key in _RESERVED or not _is_line(key, value):
            yield key


def _is_line(key: str, value: str) -> bool:
    # A reader strips the line, and the first "=" ends the key.
    return "=" not in key and f"{key}={value}" == f"{key}={value}".strip()


def _is_cleared(key: str, patterns: tuple[str, ...]) -> bool:
    # "*" clears everything except name and group; only a more specific pattern clears the group.
    return any(_matches(pattern, key) for pattern in patterns if pattern.strip("*") or key not in _RESERVED)


def _matches(pattern: str, key: str) -> bool:
    """Match a whole key, with `*` for any characters; takes linear time, unlike a regular expression."""
    first, *rest = pattern.split("*")
    if not rest:
        return key == pattern
    *middle, last = rest
    at, end = len(first), len(key) - len(last)
    if at > end or not key.startswith(first) or not key.endswith(last):
        return False
    for part in middle:
        found = key.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
