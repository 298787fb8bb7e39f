"""Select requests from those that a development server has seen."""

from mender_oneshot.devserver import DevServer, Seen


def final_status(seen: Seen) -> bool:
    """Return whether a request reports the final status of a deployment."""
    return seen.method == "PUT" and seen.path.endswith("/status") and b"ing" not in seen.body


def fetched(server: DevServer) -> list[Seen]:
    """Return the requests for artifacts."""
    return [seen for seen in server.requests if seen.origin == "storage"]
