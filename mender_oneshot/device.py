"""What the device says of itself: identity, device type, artifact name; and how its scripts are run.

Runs the scripts and reads the files; knows nothing of the server.
"""

import logging
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping

from . import disk, errors, script
from .settings import Settings

SCRIPT_SECONDS = 60.0
SCRIPT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OUTPUT_LIMIT = 1 << 20

PLACEHOLDERS = {
    *("none", "null", "(null)", "unknown", "undefined", "n/a", "not specified", "not applicable"),
    *("default string", "system serial number", "to be filled by o.e.m.", "to be filled by oem"),
    "03000200-0400-0500-0006-000700080009",
}
"""Values, in lower case, that say that there is no value; the lower half is what firmware has (SMBIOS)."""

log = logging.getLogger(__name__)

Values = dict[str, list[str]]


def identity_script(settings: Settings) -> str:
    """Return the path of the identity script."""
    return f"{settings.places.scripts_dir}/identity/mender-device-identity"


def identity(settings: Settings, form: str) -> dict[str, str | list[str]]:
    """Run the identity script; raises `errors.SettingsError` when it yields no identity.

    The form decides who we are: the server takes {"mac": "a"} and {"mac": ["a"]} for two devices
    (device-api.md section 1.2), "string" being what the C++ and Go clients send, "list" what
    mender-python-client sent.
    """
    script = identity_script(settings)
    disk.require_target(script)
    try:
        output = run_script(settings, script).decode()
    except (errors.ScriptFailed, UnicodeDecodeError) as error:
        why = "what it prints is not UTF-8" if isinstance(error, UnicodeDecodeError) else error
        raise errors.SettingsError(
            f"The identity script {script} failed: {why}; correct the script."
        ) from error
    values = parse_key_values(output, strip=form == "list")
    if not values:
        raise errors.SettingsError(
            f"The identity script {script} printed no key=value line; correct the script."
        )
    return dict(values) if form == "list" else {key: single(value) for key, value in values.items()}


def tells_apart(identity: Mapping[str, str | list[str]]) -> bool:
    """Return whether an identity has a value that can tell this device from any other."""
    values = [v for value in identity.values() for v in ([value] if isinstance(value, str) else value)]
    return not all(says_nothing(value) for value in values)


def says_nothing(value: str) -> bool:
    """Return whether a value is what scripts, drivers and firmware give if they have none."""
    text = value.strip().lower()
    digits = text.replace(":", "").replace("-", "")
    # A MAC address, a serial number or a UUID; a short "0" may be the name of a first device.
    blank = len(digits) >= 12 and (set(digits) <= {"0"} or set(digits) <= {"f"})
    return not text or blank or text in PLACEHOLDERS


def device_type(settings: Settings) -> str:
    """Read the device type; raises `errors.SettingsError` where the file is missing or says nothing."""
    path = settings.device_type_file or settings.places.data("device_type")
    values = _read_key_values(path)
    if values is None:
        raise errors.SettingsError(
            f"There is no device type: put a line device_type=<your board> into {path}."
        )
    found = values.get("device_type", [""])[-1]
    if not found:
        raise errors.SettingsError(f"{path} has no line device_type=<your board>; add it.")
    return found


def provides(settings: Settings) -> dict[str, str]:
    """Read `artifact_info`, with `artifact_name` always in it: "unknown" as in the reference client."""
    values = _read_key_values(f"{settings.places.conf_dir}/artifact_info") or {}
    return {"artifact_name": "unknown"} | {key: value[-1] for key, value in values.items() if value[-1]}


def _read_key_values(path: str) -> Values | None:
    try:
        content = disk.read(path, 65536)
        return None if content is None else parse_key_values(content.decode("utf-8-sig"), strip=True)
    except errors.SettingsError:
        raise
    except (errors.Error, UnicodeDecodeError) as error:
        why = error if isinstance(error, errors.Error) else f"{path} is not UTF-8; write it again."
        raise errors.SettingsError(str(why)) from error


def parse_key_values(text: str, *, strip: bool) -> Values:
    """Collect `key=value` lines; a key that comes several times has several values, other lines are skipped.

    With `strip` the blanks around a line go, as in mender-python-client; without, only the line end.
    """
    values: Values = {}
    for line in text.split("\n"):
        if pair := parse_line(line, strip=strip):
            values.setdefault(pair[0], []).append(pair[1])
    return values


def parse_line(line: str, *, strip: bool) -> tuple[str, str] | None:
    """Return key and value of one `key=value` line, None for any other line."""
    line = line.strip() if strip else line.removesuffix("\r")
    key, separator, value = line.partition("=")
    return (key, value) if separator and key else None


def single(values: list[str]) -> str | list[str]:
    """Say one value as itself, several as a list."""
    return values[0] if len(values) == 1 else values


def script_environment(settings: Settings) -> dict[str, str]:
    """Return all that a script gets of an environment, whoever called us.

    What a script prints must not depend on the PATH of cron or the language of a login shell: the same device
    would be two for the server.
    """
    places = settings.places
    return {
        "PATH": SCRIPT_PATH,
        "LANG": "C",
        "LC_ALL": "C",
        "MENDER_CONF_DIR": places.conf_dir,
        "MENDER_DATA_DIR": places.scripts_dir,
        "MENDER_DATASTORE_DIR": places.datastore,
    }


def run_script(settings: Settings, path: str, seconds: float = SCRIPT_SECONDS) -> bytes:
    """Run a script and return what it printed on stdout, at most 1 MiB.

    It gets `script_environment`, the working directory / and an empty stdin. It is over when the script
    itself ends, whatever its children hold open; at the time limit its whole process group is killed.
    Raises `errors.ScriptFailed`, with the last it had to say on stderr, or `errors.TemporaryError`.
    """
    try:
        process = subprocess.Popen(
            [path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            cwd="/",
            env=script_environment(settings),
        )
    except OSError as error:
        why = script.explain(path, error)
        if script.is_temporary(error):
            raise errors.TemporaryError(
                f"The script {path} cannot be started just now ({why}); the next run tries again."
            ) from error
        raise errors.ScriptFailed(f"it cannot be started: {why}") from error
    with process:
        output, complaint = bytearray(), bytearray()
        try:
            _listen(process, output, complaint, time.monotonic() + seconds)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    words = " ".join(complaint.decode("utf-8", "replace").split())[-200:]
    log.debug("%s said on stderr: %s", path, words)
    if process.returncode:
        raise errors.ScriptFailed(f"it ended with {process.returncode}" + (f" ({words})" if words else ""))
    return bytes(output)


def _listen(process: subprocess.Popen[bytes], output: bytearray, complaint: bytearray, end: float) -> None:
    """Collect what a process says until it has ended; of its complaints only the last are kept."""
    heard = {
        pipe.fileno(): kept for pipe, kept in ((process.stdout, output), (process.stderr, complaint)) if pipe
    }
    poll = select.poll()  # select(2) takes no descriptor above 1023, and a caller may have left us many
    for pipe in heard:
        poll.register(pipe, select.POLLIN)
    pause = 0.001
    while True:
        ended = process.poll() is not None
        readable = [pipe for pipe, _ in poll.poll(0 if ended else pause * 1000)]
        if ended and not readable:
            return
        # The end of a process is no event to select: look for it at first often, then less so.
        pause = min(pause * 2, 0.1)
        for pipe in readable:
            piece = os.read(pipe, 65536)
            heard[pipe] += piece
            if not piece:
                poll.unregister(pipe)
        del complaint[:-4096]
        if len(output) > OUTPUT_LIMIT:
            raise errors.ScriptFailed(f"it prints more than {OUTPUT_LIMIT} bytes")
        if time.monotonic() > end:
            raise errors.ScriptFailed("it did not end in time")
