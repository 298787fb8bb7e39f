"""What can go wrong, and the exit code each thing has.

Every message is one sentence for a person: what, why, and what now. None holds a token or a key.
The codes are `sysexits.h`, clear of click's and Python's own 1 and 2; the README lists them.
"""

import os

BUG = 1
NOTHING_IN_PROGRESS = 2
UPDATE_AVAILABLE = 16


class Error(Exception):
    """Anything the world can do to us; the message is the whole story and `exit_code` what cron sees."""

    exit_code = BUG
    logged = False  # the log of the deployment, and so stderr, has it already
    syslog = False  # for the syslog as well, wherever the caller reads it


class UsageError(Error):
    """The words of the command line make no sense."""

    exit_code = os.EX_USAGE


class NothingInProgress(Error):
    """There is no update to download, install or report (`mender-update` says 2 as well)."""

    exit_code = NOTHING_IN_PROGRESS


class ArtifactRejected(Error):
    """The artifact is damaged, not signed by one of our keys, or not for this device."""

    exit_code = os.EX_DATAERR


class ServerRejected(Error):
    """The server, or TLS, says no for good: asking again the same way cannot help."""

    exit_code = os.EX_UNAVAILABLE


class UntrustedServer(ServerRejected):
    """Who answers is not the server, as far as its certificate says; what the server thinks, nobody knows."""


class NoSpace(Error):
    """A file system is full, or a file cannot be created."""

    exit_code = os.EX_CANTCREAT


class DiskError(Error):
    """Reading or writing a file failed."""

    exit_code = os.EX_IOERR


class UntrustedFile(DiskError):
    """Somebody else may have made a file that has one of our names, or may write to it.

    `reason` is the end of a sentence about it; `content` is what it holds, if that was read.
    """

    def __init__(self, path: str, reason: str, content: bytes = b"") -> None:
        super().__init__(f"Cannot use {path}: it {reason}; remove it.")
        self.reason = reason
        self.content = content


class FileTooLarge(DiskError):
    """A file is larger than anything that belongs there; `reason` and `content` are as in `UntrustedFile`."""

    def __init__(self, path: str, limit: int, content: bytes) -> None:
        self.reason = f"is larger than {limit} bytes"
        super().__init__(f"Cannot read {path}: it {self.reason}; remove it.")
        self.content = content


class TemporaryError(Error):
    """The network, the server or another invocation is in the way for now.

    `host` is the host that answered, "" if no answer came; `retry_after` is the pause that it asked for, in
    seconds, or None.
    """

    exit_code = os.EX_TEMPFAIL

    def __init__(self, message: str, retry_after: float | None = None, host: str = "") -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.host = host
        self.pause_stored = False  # `retry_after` is in the state already


class NotYet(TemporaryError):
    """The step has to wait for another one of ours: a result in the queue, a sub-updater at work.

    Asked for at the wrong moment, the step has not failed; nobody counts it.
    """


class LinkExpired(TemporaryError):
    """The link of the artifact is no longer valid; the step check-update gets a new one."""


class ServerError(TemporaryError):
    """The server is there, and says that it cannot (5xx)."""


class OutOfMemory(TemporaryError):
    """There is not enough memory for now."""

    def __init__(self) -> None:
        super().__init__("There is not enough memory; the next run tries again.")


class NotAMenderServer(TemporaryError):
    """The answer is not in the form of a Mender server; it came from a gateway, a firewall or a portal."""


class Busy(TemporaryError):
    """Another invocation holds the lock of the data directory."""


class DeadlineExceeded(Error):
    """The time limit of the invocation is over; of no other kind, so that nobody takes it for an answer."""

    exit_code = os.EX_TEMPFAIL


class ScriptFailed(Error):
    """A script of the device's failed; the message is the end of a sentence that names the script."""


class InvalidResponse(Error):
    """The server answered something that makes no sense."""

    exit_code = os.EX_PROTOCOL


class NotAccepted(Error):
    """The server has not accepted this device (yet)."""

    exit_code = os.EX_NOPERM


class InvalidToken(Error):
    """There is no token that has not expired, or the server rejected it (401, or 403 with `forbidden`).

    `deployments.ask` answers it by the step `auth`, once; so it ends a step only if the new token is rejected
    as well.
    """

    exit_code = os.EX_NOPERM

    def __init__(self, message: str, *, forbidden: bool = False) -> None:
        super().__init__(message)
        if forbidden:
            self.exit_code = os.EX_UNAVAILABLE


class SettingsError(Error):
    """The configuration, or a file the device must have, is missing or wrong."""

    exit_code = os.EX_CONFIG
