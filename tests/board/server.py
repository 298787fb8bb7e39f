"""The development server as the board sees it: under the one address that its network leads to."""

from collections.abc import Callable
from pathlib import Path

from mender_oneshot.devserver import DevServer, Seen

from .layout import API_PORT, GUEST_SERVER, STORAGE_PORT


class BoardServer(DevServer):
    """A server whose links name the board's view of it; `ports` are those on the host."""

    def __init__(self, directory: Path, on_seen: Callable[[Seen], None] | None = None) -> None:
        super().__init__(directory, names=(GUEST_SERVER,), accept_all=True, on_seen=on_seen)

    def __enter__(self) -> "BoardServer":
        super().__enter__()
        return self

    @property
    def ports(self) -> tuple[int, int]:
        """The ports of the API and of the storage."""
        return self._api.port, self._storage.port

    def _base_url(self, origin: str, host: str) -> str:
        return f"https://{GUEST_SERVER}:{API_PORT if origin == 'api' else STORAGE_PORT}"
