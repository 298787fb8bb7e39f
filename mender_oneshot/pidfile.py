"""A note about a process that tells it from every other one, also from a later one with the same number."""

BOOT_ID = "/proc/sys/kernel/random/boot_id"


def boot_id() -> str:
    """Return the kernel's boot id, or "" in a chroot without /proc."""
    try:
        with open(BOOT_ID, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def note() -> bytes:
    """Return a note about this process: the boot, its number, its start. It stays true after an exec.

    b"" without /proc.
    """
    boot, number = boot_id(), _number()
    found = _look_up(number)
    return f"{boot} {number} {found[1]}\n".encode() if boot and found else b""


def is_running(note: bytes) -> bool:
    """Return whether the process of a note is running; False for anything that is no note."""
    words = note.decode("ascii", "replace").split()
    if len(words) != 3 or not words[1].isdigit() or words[0] != boot_id():
        return False
    found = _look_up(words[1])
    return found is not None and found[0] not in "ZX" and found[1] == words[2]


def _number() -> str:
    """Return our process number as /proc has it, which may be that of another namespace than ours."""
    try:
        with open("/proc/self/stat", "rb") as file:
            return file.read().split(b" ", 1)[0].decode("ascii", "replace")
    except OSError:
        return ""


def _look_up(number: str) -> tuple[str, str] | None:
    """Return the state of a process, and the time of its start; None if there is no such process."""
    try:
        with open(f"/proc/{number}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()  # the name before it may hold anything
    except (OSError, ValueError):
        return None
    return (fields[0].decode("ascii"), fields[19].decode("ascii")) if len(fields) > 19 else None
