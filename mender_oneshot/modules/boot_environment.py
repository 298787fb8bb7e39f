"""The variables that the boot loader and the system share: U-Boot's, or GRUB's with Mender's tools.

A set of variables is stored in one call of the tool, which writes it so that a power cut leaves the old set
or the new. Then it is read again, because some tools succeed without having written.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple

from .. import errors
from . import programs

_TOOLS = (
    ("grub-mender-grubenv-print", "grub-mender-grubenv-set"),
    ("fw_printenv", "fw_setenv"),
)
_NAMES = (
    "mender_boot_part",
    "upgrade_available",
    "mender_boot_part_hex",
    "bootcount",
    "mender_check_saveenv_canary",
    "mender_saveenv_canary",
)

_SEPARATORS = ("=", " ")
"""Between a name and its value: libubootenv and GRUB's tools need the first, older fw_setenv the second."""


class Environment(NamedTuple):
    """What the boot loader will do: which slot it boots, and whether that is a trial."""

    active: int
    upgrade_available: bool


def load() -> Environment:
    """Read the environment; raises `errors.Error` if it cannot be read or the canary is missing."""
    values = _read()
    if values.get("mender_check_saveenv_canary") == "1" and values.get("mender_saveenv_canary") != "1":
        raise errors.Error(
            "The boot loader environment has mender_check_saveenv_canary=1 but not "
            "mender_saveenv_canary=1, so what is written here does not reach the boot loader; correct "
            "/etc/fw_env.config or the boot loader."
        )
    active = values.get("mender_boot_part", "")
    if not (active.isascii() and active.isdigit() and len(active) < 10):
        raise errors.Error(
            "The boot loader environment has no number in mender_boot_part, so the active slot is unknown; "
            "set it to the number of the partition that is mounted as root."
        )
    return Environment(int(active), values.get("upgrade_available") == "1")


def store(slot: int | None, *, upgrade_available: bool, bootcount: bool = True) -> None:
    """Choose the slot for the next boot (None: the same), as a trial or permanently; raises `errors.Error`.

    `bootcount` resets the count of boots.
    """
    values = {} if slot is None else {"mender_boot_part": str(slot), "mender_boot_part_hex": f"{slot:x}"}
    values["upgrade_available"] = str(int(upgrade_available))
    if bootcount:
        values["bootcount"] = "0"
    problem = ""
    for separator in _SEPARATORS:
        problem = _write(values, separator)
        found = _read()
        if all(found.get(name) == value for name, value in values.items()):
            os.sync()
            return
    raise errors.Error(
        f"Cannot write the boot loader environment: {_tools()[1]} {problem or 'changed nothing'}; "
        "check its configuration and whether its storage is writable."
    )


def _write(values: Mapping[str, str], separator: str) -> str:
    """Write variables in one call, and return the problem, if any, as the end of a sentence."""
    program = programs.require(_tools()[1])
    lines = "".join(f"{name}{separator}{value}\n" for name, value in values.items())
    done = programs.capture([program, "-s", "-"], lines)
    if not done.code:
        return ""
    last = (done.messages.strip().splitlines() or ["no explanation"])[-1]
    return f"ended with {done.code} ({last})"


def _read() -> dict[str, str]:
    """Return the variables of `_NAMES` that are set."""
    program = programs.require(_tools()[0])
    # One that is not set makes some tools fail after they printed the others.
    done = programs.capture([program, *_NAMES])
    values: dict[str, str] = {}
    for line in done.output.splitlines():
        name, equals, value = line.partition("=")
        if equals and name in _NAMES and value:
            values.setdefault(name, value.strip())
    if "mender_boot_part" not in values and done.code:
        raise errors.Error(
            "Cannot read the boot loader environment: "
            f"{programs.failed(program, done.code, done.messages)} Check its configuration, such as "
            "/etc/fw_env.config."
        )
    return values


def _tools() -> tuple[str, str]:
    """Return the names of the two tools: GRUB's if they are installed, as the reference module does."""
    for tools in _TOOLS:
        if programs.find(tools[0]):
            return tools
    raise errors.Error(
        "Cannot read the boot loader environment: neither fw_printenv nor grub-mender-grubenv-print is "
        "installed; install libubootenv-tool or grub-mender-grubenv."
    )
