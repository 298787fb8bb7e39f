"""The two slots of a device for a root file system, and which of them is mounted as root."""

import os
import re
import stat
from collections.abc import Callable
from typing import NamedTuple

from .. import config_file, errors
from ..paths import find_places

_TAGS = {"PARTUUID": "by-partuuid", "PARTLABEL": "by-partlabel", "UUID": "by-uuid", "LABEL": "by-label"}


class Board(NamedTuple):
    """The system that is asked: `prefix` is put before /proc, /sys, /dev and the root of it."""

    prefix: str = ""
    is_device: Callable[[int], bool] = stat.S_ISBLK


class Slot(NamedTuple):
    """One of the two: its device, and the number by which the boot loader calls it."""

    path: str
    number: int

    @property
    def is_ubi(self) -> bool:
        """Whether it is a UBI volume, which is a character device and written as a whole."""
        return re.match("ubi[0-9]", os.path.basename(self.path)) is not None


class NotConfigured(errors.Error):
    """`mender.conf` does not name two usable slots."""


def configured(board: Board) -> tuple[Slot, Slot]:
    """Return the slots in RootfsPartA and RootfsPartB; raises `NotConfigured`."""
    places = find_places()
    found: dict[str, str] = {}
    for path in (places.fallback, places.config):
        try:
            content = config_file.read(places, path)
            values = config_file.parse_object(path, content)[1] if content is not None else {}
        except errors.Error as error:
            raise NotConfigured(str(error)) from error
        # Other settings in these files must not keep a device from going back.
        found |= {
            key.lower(): value for key, value in values.items() if isinstance(value, str) and value.strip()
        }
    slots = []
    for name in ("RootfsPartA", "RootfsPartB"):
        if name.lower() not in found:
            raise NotConfigured(
                f"{name} is not set, so the slots are unknown; set it in {places.config} to a device."
            )
        slots.append(_slot(board, name, found[name.lower()]))
    if slots[0].number == slots[1].number:
        raise NotConfigured(
            f"RootfsPartA and RootfsPartB both have the number {slots[0].number}, so the boot loader cannot "
            f"tell them apart; correct them in {places.config}."
        )
    return slots[0], slots[1]


def _slot(board: Board, name: str, text: str) -> Slot:
    path = text
    if text == "/dev/root" or text.startswith("/dev/disk/") or not text.startswith("/dev/"):
        path = _resolve(board, text) or text
    number = re.search("[0-9]+$", path)
    if not number or not path.startswith("/"):
        raise NotConfigured(
            f"{name} is {text}, which leads to no device with a number at its end; correct it in mender.conf."
        )
    return Slot(path, int(number[0]))


def mounted(board: Board, slots: tuple[Slot, Slot]) -> Slot | None:
    """Return the slot that is mounted as root, None if it is neither, as far as the system tells."""
    number = os.stat(f"{board.prefix}/").st_dev
    for slot in slots:
        if _device_number(slot.path) == number:
            return slot
    sources = [entry.source for entry in _mounts(board) if entry.point == "/"][-1:]
    for name in (*sources, _of_command_line(board)):
        path = _resolve(board, name) if name and name != "/dev/root" else None
        for slot in slots:
            if path and path in (slot.path, os.path.realpath(slot.path)):
                return slot
    return None


def _device_number(path: str) -> int | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_rdev if stat.S_ISBLK(found.st_mode) else None


def require_writable(board: Board, slot: Slot) -> None:
    """Raise `errors.Error` for a slot that is no device or is mounted, as root or anywhere else."""
    try:
        mode = os.stat(slot.path).st_mode
    except OSError as error:
        raise errors.Error(
            f"Cannot write to {slot.path}: {os.strerror(error.errno or 0)}; correct RootfsPartA and "
            "RootfsPartB."
        ) from error
    if not board.is_device(mode) and not (slot.is_ubi and stat.S_ISCHR(mode)):
        raise errors.Error(
            f"Cannot write to {slot.path}: it is not a block device; remove it and correct RootfsPartA and "
            "RootfsPartB."
        )
    number = _device_number(slot.path)
    if number is not None and number == os.stat(f"{board.prefix}/").st_dev:
        raise errors.Error(f"Cannot write to {slot.path}: it is mounted as root; correct mender.conf.")
    for entry in _mounts(board):
        same = number is not None and entry.number == f"{os.major(number)}:{os.minor(number)}"
        if same or _resolve(board, entry.source) in (slot.path, os.path.realpath(slot.path)):
            raise errors.Error(
                f"Cannot write to {slot.path}: it is mounted at {entry.point}; unmount it, then deploy again."
            )


def ubi_size(board: Board, slot: Slot) -> int | None:
    """Return the bytes that a UBI volume holds, None if the kernel does not tell."""
    try:
        with open(f"{board.prefix}/sys/class/ubi/{os.path.basename(slot.path)}/data_bytes") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


class _Mount(NamedTuple):
    number: str
    point: str
    source: str


def _mounts(board: Board) -> list[_Mount]:
    with open(f"{board.prefix}/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        lines = [line.rstrip("\n").split(" ") for line in file]
    entries = []
    for words in lines:
        after = words.index("-") if "-" in words else len(words)
        if len(words) > after + 2:
            entries.append(_Mount(words[2], words[4], words[after + 2]))
    return entries


def _of_command_line(board: Board) -> str:
    """Return `root=` of the kernel's command line, the last if there are several, "" if there is none."""
    try:
        with open(f"{board.prefix}/proc/cmdline", encoding="utf-8", errors="replace") as file:
            words = file.read().replace('"', "").split()
    except OSError:
        return ""
    return next((word[5:] for word in reversed(words) if word.startswith("root=")), "")


def _resolve(board: Board, name: str) -> str | None:
    """Return the path of the device that a name in mender.conf, mountinfo or `root=` means."""
    if name == "/dev/root":
        real = _of_command_line(board)
        return _resolve(board, real) if real and real != name else None
    if name.startswith("/"):
        if not name.startswith("/dev/disk/"):
            return os.path.realpath(name)
        return _link(board, name)
    if re.fullmatch("ubi[0-9]+_[0-9]+", name):
        return f"{board.prefix}/dev/{name}"
    if found := re.fullmatch("ubi([0-9]+):(.+)", name):
        return _ubi_volume(board, found[1], found[2])
    tag, _, value = name.partition("=")
    if tag in _TAGS and value:
        directory = f"/dev/disk/{_TAGS[tag]}"
        return _link(board, f"{directory}/{value}") or _link(board, f"{directory}/{value.lower()}")
    if re.fullmatch("[0-9]+:[0-9]+", name):
        return _link(board, f"/dev/block/{name}")
    return None


def _link(board: Board, path: str) -> str | None:
    real = f"{board.prefix}{path}"
    return os.path.realpath(real) if os.path.exists(real) else None


def _ubi_volume(board: Board, device: str, volume: str) -> str | None:
    directory = f"{board.prefix}/sys/class/ubi"
    try:
        names = os.listdir(directory)
    except OSError:
        return None
    for name in names:
        if name.startswith(f"ubi{device}_"):
            try:
                with open(f"{directory}/{name}/name") as file:
                    if file.read().strip() == volume:
                        return f"{board.prefix}/dev/{name}"
            except OSError:
                continue
    return None
