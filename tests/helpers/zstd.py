"""Artifacts compressed with Zstandard, by either of its two libraries."""

import sys
from collections.abc import Callable
from typing import Any

import pytest

from helpers.corpus import END, Artifact, member

MIB = 1024 * 1024


class Zstd:
    """One of the two libraries; the other one cannot be imported meanwhile."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        module: Any = pytest.importorskip(name)
        if name == "zstandard":
            monkeypatch.setitem(sys.modules, "compression.zstd", None)
        self.compress: Callable[[bytes], bytes] = module.compress


def zst(zstd: Zstd, payload: Callable[[bytes], bytes] = lambda stored: stored) -> bytes:
    """Return an artifact with a payload of 3 MiB whose compressed archive goes through a function."""
    parts = Artifact(files={"app": bytes(3 * MIB)}).parts()
    stored = zstd.compress(parts.pop("data/0000.tar"))
    parts["data/0000.tar.zst"] = payload(stored)
    return b"".join(member(*part) for part in parts.items()) + END
