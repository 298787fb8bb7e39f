"""The error for a corrupt artifact."""

from ..errors import ArtifactRejected


def corrupt(what: str) -> ArtifactRejected:
    """Return the error for an artifact that is not well-formed; `what` names the fault."""
    return ArtifactRejected(f"The artifact is corrupt: {what}; build or upload it again.")
