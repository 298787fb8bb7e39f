"""Fixtures for the tests of the artifact format."""

import pytest
from helpers.zstd import Zstd


@pytest.fixture(params=["compression.zstd", "zstandard"])
def zstd(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Zstd:
    """Each library of Zstandard that is installed."""
    return Zstd(monkeypatch, request.param)
