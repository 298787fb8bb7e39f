"""The error classes and their exit codes.

Every message is one sentence for a person: what happened, why, and what to do now. It never contains a token
or a key. The exit codes are those of `sysexits.h`, apart from the three below; the README lists them.
"""

import os

BUG = 1
NOTHING_IN_PROGRESS = 2
REBOOT_NEEDED = 4
UPDATE_AVAILABLE = 16


class Error(Exception):
    """An expected error; its message is printed as it is, without a traceback."""

    exit_code = BUG
    word = "bug"
    """The `reason` in the output of `--json`: one of `json_schema.REASONS`, whose words are a promise."""
    step = ""  # the step that ended with this error
    logged = False  # it has been logged already, and so printed on stderr
    syslog = False  # write it to the syslog as well


class UsageError(Error):
    """The command line is invalid."""

    exit_code = os.EX_USAGE
    word = "usage"


class NothingInProgress(Error):
    """There is no update to download, install or report (`mender-update` has the same exit code)."""

    exit_code = NOTHING_IN_PROGRESS
    word = "nothing_in_progress"


class ArtifactRejected(Error):
    """The artifact is corrupt, not signed by one of the verify keys, or not for this device."""

    exit_code = os.EX_DATAERR
    word = "artifact_rejected"


class ServerRejected(Error):
    """The server rejected the request, or TLS failed; a retry would fail in the same way."""

    exit_code = os.EX_UNAVAILABLE
    word = "rejected"


class UntrustedServer(ServerRejected):
    """The certificate of the server could not be verified, so its answer does not count."""

    word = "tls"


class NoSpace(Error):
    """A file system is full, or a file cannot be created."""

    exit_code = os.EX_CANTCREAT
    word = "no_space"


class DiskError(Error):
    """Reading or writing a file failed."""

    exit_code = os.EX_IOERR
    word = "disk"


class UntrustedFile(DiskError):
    """A file with one of our names may belong to another user, or be writable by one.

    `reason` is the end of a sentence about the file; `content` is its content, if that was read.
    """

    def __init__(self, path: str, reason: str, content: bytes = b"") -> None:
        super().__init__(f"Cannot use {path}: it {reason}; remove it.")
        self.reason = reason
        self.content = content


class FileTooLarge(DiskError):
    """A file is larger than a valid one can be; `reason` and `content` are as in `UntrustedFile`."""

    def __init__(self, path: str, limit: int, content: bytes) -> None:
        self.reason = f"is larger than {limit} bytes"
        super().__init__(f"Cannot read {path}: it {self.reason}; remove it.")
        self.content = content


class TemporaryError(Error):
    """The network, the server or another invocation prevents the step; a later run may succeed.

    `host` is the host that answered, "" if no answer came; `retry_after` is its `Retry-After` in seconds, or
    None.
    """

    exit_code = os.EX_TEMPFAIL
    word = "temporary"

    def __init__(self, message: str, retry_after: float | None = None, host: str = "") -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.host = host
        self.pause_stored = False  # `retry_after` is in the state already


class NotYet(TemporaryError):
    """The step must wait for a queued result to be sent, or for a sub-updater to exit.

    This does not count as a failure of the step.
    """

    word = "not_yet"


class LinkExpired(TemporaryError):
    """The link of the artifact is no longer valid; the step check-update gets a new one."""

    word = "link_expired"


class ScriptPause(TemporaryError):
    """A state script of the device asks for a pause; the step has not failed, and nothing is counted."""

    word = "script_pause"


class ServerPause(TemporaryError):
    """A server has asked for a pause (`Retry-After`) that is still in force."""

    word = "server_pause"


class NetworkError(TemporaryError):
    """No answer came, or the connection was lost."""

    word = "network"


class ServerBusy(TemporaryError):
    """The server, or the storage of the artifact, answered that it cannot do it now: 408, 429 or 5xx."""

    word = "server_busy"


class ServerError(ServerBusy):
    """The server answered with 5xx."""


class OutOfMemory(TemporaryError):
    """There is not enough memory."""

    word = "out_of_memory"

    def __init__(self) -> None:
        super().__init__("There is not enough memory; the next run will retry.")


class NotAMenderServer(TemporaryError):
    """The answer does not have the form of a Mender server's; a gateway, firewall or portal sent it."""

    word = "not_a_mender_server"


class Busy(TemporaryError):
    """Another invocation holds the lock of the data directory."""

    word = "lock_held"


class DeadlineExceeded(Error):
    """The time limit of the invocation has passed.

    Not a `TemporaryError`, so that handlers for errors of the server do not catch it.
    """

    exit_code = os.EX_TEMPFAIL
    word = "deadline"


class ScriptFailed(Error):
    """A script of the device failed; the message is the end of a sentence that names the script."""


class InvalidResponse(Error):
    """The server sent an invalid answer."""

    exit_code = os.EX_PROTOCOL
    word = "protocol"


class NotAccepted(Error):
    """The server has not accepted this device."""

    exit_code = os.EX_NOPERM
    word = "not_accepted"


class InvalidToken(Error):
    """There is no token that has not expired, or the server rejected it (401, or 403 with `forbidden`).

    `deployments.ask` responds to it with the step `auth`, once. So it ends a step only if the server rejects
    the new token as well.
    """

    exit_code = os.EX_NOPERM
    word = "token"

    def __init__(self, message: str, *, forbidden: bool = False) -> None:
        super().__init__(message)
        if forbidden:
            self.exit_code = os.EX_UNAVAILABLE


class SettingsError(Error):
    """The configuration, or a file that the device must have, is missing or invalid."""

    exit_code = os.EX_CONFIG
    word = "config"
