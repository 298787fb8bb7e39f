"""Parse the header blocks of tar archives; reject those that programs interpret differently.

GNU tar, busybox, toybox, libarchive, Python's tarfile and Go's archive/tar support different extensions, and
each skips the others' in its own way. So a field that a regular file does not use must be empty, a number
must be well-formed, and an extended header must not contradict the header that follows it.

The positions are those of pax(1), "ustar Interchange Format". Pure functions, which raise only `BadHeader`.
"""

import re
from typing import NamedTuple

BLOCK = 512

# PATH_MAX of Linux, so nothing longer can be installed. mender-artifact writes names above 100 bytes as pax.
NAME_MAX = 4096

# The longest name, and room for the few other records (times, owner) that accompany it.
EXTENDED_MAX = 2 * NAME_MAX

SIZE_MAX = 2**63 - 1

_NAME_FIELD = 100
_OCTAL_SIZES = 8**11  # 8 GiB: sizes from here on do not fit into the eleven digits of a header
_POSIX, _GNU = b"ustar\x0000", b"ustar  \0"

_CHECKSUM = re.compile(rb"[0-7]{6}\0 ")
# Digits, then NULs, or a blank as bsdtar writes it.
_OCTAL = re.compile(rb"([0-7]+)(?: \0*|\0+)")
_CONTROLS = re.compile(rb"[\0-\x1f\x7f]")
# libarchive tests for compressed streams before it tests for tar, and a file name can begin like this one.
_BZIP2 = re.compile(rb"BZh[1-9]1AY&SY")

# Records that change neither content nor name, and the format of their values. Others do change them:
# GNU.sparse.* (the stored bytes are not the file), linkpath, hdrcharset.
_TIME, _ID = re.compile(r"-?[0-9]{1,11}(\.[0-9]{1,19})?"), re.compile("[0-9]{1,10}")
_TEXT = re.compile("[^\0-\x1f\x7f]*")
_HARMLESS = {
    "atime": _TIME,
    "ctime": _TIME,
    "mtime": _TIME,
    "gid": _ID,
    "uid": _ID,
    "gname": _TEXT,
    "uname": _TEXT,
    "comment": _TEXT,
}


_SIZE = re.compile("0|[1-9][0-9]{0,18}")
_INVALID_EXTENSION = "an invalid extended header"


class BadHeader(ValueError):
    """A header is malformed, or ambiguous; the message is the end of a sentence, "The archive has ..."."""


class Header(NamedTuple):
    """One header block: the name, including the prefix, the size in bytes, the type flag and the dialect."""

    name: bytes
    size: int
    kind: bytes
    gnu: bool
    has_prefix: bool


class Extension(NamedTuple):
    """The path and size, in bytes, that an extended header sets for the next member; None: not set."""

    path: str | None
    size: int | None


def parse(block: bytes) -> Header:
    """Parse the header block of a regular file or of an extended header; raises `BadHeader`."""
    if not _CHECKSUM.fullmatch(block[148:156]) or int(block[148:154], 8) != _checksum(block):
        raise BadHeader("a header that does not match its checksum")
    magic, kind = block[257:265], block[156:157]
    if magic not in (_POSIX, _GNU):
        raise BadHeader("a header of an unknown format")
    gnu = magic == _GNU
    name = _text(block[:_NAME_FIELD], "name")
    if kind not in (b"0", b"\0", b"L" if gnu else b"x"):
        raise BadHeader(f"{_quoted(name)}, which is not a regular file")
    if _BZIP2.match(name):
        raise BadHeader("a name that begins like a compressed file")
    _check_unused_fields(block, gnu)
    _check_metadata(block, gnu)
    size = _number(block[124:136], "size", gnu)
    prefix = b"" if gnu else _text(block[345:500], "prefix")
    return Header(prefix + b"/" + name if prefix else name, size, kind, gnu, bool(prefix))


def _check_unused_fields(block: bytes, gnu: bool) -> None:
    """Raise `BadHeader` if a field has a value that only other members than regular files have."""
    if block[157:257].strip(b"\0"):
        raise BadHeader("a regular file with the name of a link")
    if block[500:].strip(b"\0") or (gnu and block[345:500].strip(b"\0")):
        raise BadHeader("a header with data in fields that a regular file does not use")
    for field in (block[329:337], block[337:345]):
        if field.strip(b"\0") and _number(field, "device", gnu):
            raise BadHeader("a regular file with the number of a device")


def _check_metadata(block: bytes, gnu: bool) -> None:
    """Raise `BadHeader` if the owner, the group, the mode or the time is malformed."""
    _text(block[265:297], "owner")
    _text(block[297:329], "group")
    # Until 2017, Go wrote the file type above the permissions.
    if _number(block[100:108], "mode", gnu) & ~0o7777 not in (0, 0o100000):
        raise BadHeader("a regular file with the mode of another kind of file")
    for field, what in ((block[108:116], "owner"), (block[116:124], "group")):
        if _number(field, what, gnu) > 2**32 - 1:
            raise BadHeader(f"an invalid {what}")
    _number(block[136:148], "time", gnu)


def _checksum(block: bytes) -> int:
    # The checksum field itself counts as blanks.
    return sum(block) - sum(block[148:156]) + 8 * ord(" ")


def _quoted(name: bytes) -> str:
    return "".join(char if char.isprintable() else "?" for char in name.decode("utf-8", "replace")[:80])


def _text(field: bytes, what: str) -> bytes:
    text, _, rest = field.partition(b"\0")
    if rest.strip(b"\0"):
        raise BadHeader(f"a header with data after the end of its {what}")
    if what != "name" and _CONTROLS.search(text):
        raise BadHeader(f"an invalid {what}")
    return text


def _number(field: bytes, what: str, gnu: bool) -> int:
    if octal := _OCTAL.fullmatch(field):
        return int(octal[1], 8)
    # GNU's base 256, for numbers too large for octal digits; those that begin with 0xff are negative.
    number = int.from_bytes(field[1:], "big")
    if not gnu or field[0] != 0x80 or not 8 ** (len(field) - 1) <= number <= SIZE_MAX:
        raise BadHeader(f"an invalid {what}")
    return number


def gnu_name(header: Header, data: bytes) -> Extension:
    """Parse the content of GNU tar's long name: the name and a NUL."""
    if header.name != b"././@LongLink" or not data.endswith(b"\0") or len(data) < _NAME_FIELD:
        raise BadHeader("an invalid long name")
    return Extension(_decoded(data[:-1]), None)


def pax(data: bytes) -> Extension:
    r"""Parse the records of an extended header, `LENGTH KEY=VALUE\n`; LENGTH counts the whole record."""
    if not data:
        raise BadHeader(_INVALID_EXTENSION)
    values: dict[str, str] = {}
    while data:
        length = data[:5].partition(b" ")[0]
        if not length.isdigit() or length[:1] == b"0" or not len(length) + 3 <= int(length) <= len(data):
            raise BadHeader(_INVALID_EXTENSION)
        record, data = data[: int(length)], data[int(length) :]
        key, value = _record(record, len(length))
        if key in values:
            raise BadHeader(_INVALID_EXTENSION)
        values[key] = value
    return Extension(values.get("path"), int(values["size"]) if "size" in values else None)


def _record(record: bytes, digits: int) -> tuple[str, str]:
    """Return key and value of a record whose length has so many digits; reject one with other effects."""
    key, equals, value = _decoded(record[digits + 1 :]).partition("=")
    if record[digits : digits + 1] != b" " or not equals or not value.endswith("\n"):
        raise BadHeader(_INVALID_EXTENSION)
    value = value[:-1]
    if key == "size":
        accepted = bool(_SIZE.fullmatch(value)) and int(value) <= SIZE_MAX
    else:
        accepted = key == "path" or (key in _HARMLESS and bool(_HARMLESS[key].fullmatch(value)))
    if not accepted:
        raise BadHeader(_INVALID_EXTENSION)
    return key, value


def combined(header: Header, extension: Extension, extension_gnu: bool) -> tuple[str, int]:
    """Return path and size of a member with an extended header; raise `BadHeader` if they contradict.

    Programs that do not support the extension use the header's own values: the name must be the beginning of
    the path, and the size the same, or 0 if it does not fit into the header.
    """
    if header.gnu != extension_gnu:
        raise BadHeader("an extended header of another format than its member")
    size = header.size
    if extension.size is not None and extension.size != size:
        if size or extension.size < _OCTAL_SIZES:
            raise BadHeader("a member with two different sizes")
        size = extension.size
    if extension.path is None:
        return _decoded(header.name), size
    if header.has_prefix or header.name not in _stand_ins(extension.path):
        raise BadHeader(f"a member with two different names, {_quoted(extension.path.encode())} is one")
    return extension.path, size


def plain(header: Header) -> tuple[str, int]:
    """Return path and size of a member without an extended header."""
    return _decoded(header.name), header.size


def _stand_ins(path: str) -> set[bytes]:
    """Return what GNU tar, Go and Python write into the name field for a path that does not fit there.

    It never ends with a slash, like Go's: some programs would create a directory.
    """
    forms = (path.encode(), path.encode("ascii", "ignore"), path.encode("ascii", "replace"))
    cut = {form[:_NAME_FIELD] for form in forms}
    return {form for form in cut if not form.endswith(b"/")} | {
        form.rstrip(b"/") for form in cut if form.endswith(b"/")
    }


def may_hide_members(start: bytes) -> bool:
    """Return whether a program that ignores the size of a member would find more members in its content.

    `start` is the first two blocks of the content. Programs that do not support pax sizes of 8 GiB and more
    continue there; they stop at a block that is not a header, and at two blocks of zeros.
    """
    block = start[:BLOCK]
    if not block.strip(b"\0"):
        return bool(start.strip(b"\0"))
    signed = sum(byte - 256 if byte > 127 else byte for byte in block)
    signed -= sum(byte - 256 if byte > 127 else byte for byte in block[148:156]) - 8 * ord(" ")
    sums = {_checksum(block), signed}
    return any(int(digits, 8) in sums for digits in re.findall(rb"[0-7]+", block[148:156]))


def _decoded(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise BadHeader("a name that is not UTF-8") from None
