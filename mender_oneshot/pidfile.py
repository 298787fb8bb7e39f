"""Identify a process by boot, number and start time, so that a reused number is not mistaken for it."""

BOOT_ID = "/proc/sys/kernel/random/boot_id"


def boot_id() -> str:
    """Return the kernel's boot id, or "" in a chroot without /proc."""
    try:
        with open(BOOT_ID, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def note() -> bytes:
    """Return the boot id, number and start time of this process as one line; they do not change on exec.

    Returns b"" without /proc.
    """
    boot, number = boot_id(), _number()
    found = _read_stat(number)
    return f"{boot} {number} {found[1]}\n".encode() if boot and found else b""


def is_running(note: bytes) -> bool:
    """Return whether the process that `note` describes is running; False if it is not in that format."""
    fields = note.decode("ascii", "replace").split()
    if len(fields) != 3 or not fields[1].isdigit() or fields[0] != boot_id():
        return False
    found = _read_stat(fields[1])
    return found is not None and found[0] not in "ZX" and found[1] == fields[2]


def _number() -> str:
    """Return the number of this process in /proc, which may be mounted for another PID namespace."""
    try:
        with open("/proc/self/stat", "rb") as file:
            return file.read().split(b" ", 1)[0].decode("ascii", "replace")
    except OSError:
        return ""


def _read_stat(number: str) -> tuple[str, str] | None:
    """Return the state and the start time of a process, or None if it does not exist."""
    try:
        with open(f"/proc/{number}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()  # the name before it may contain anything
    except (OSError, ValueError):
        return None
    return (fields[0].decode("ascii"), fields[19].decode("ascii")) if len(fields) > 19 else None
