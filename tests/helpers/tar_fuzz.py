"""Artifacts bent structurally, at each level: headers, extensions, sizes, padding, compression, order."""

import gzip
import lzma
import random
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from helpers import corpus

EVIL = corpus.member("app", b"#!/bin/sh\necho evil\n") + corpus.END
"""An archive that an attacker wants to be unpacked."""

FIELDS = {
    "name": (0, 100),
    "mode": (100, 8),
    "uid": (108, 8),
    "gid": (116, 8),
    "size": (124, 12),
    "mtime": (136, 12),
    "kind": (156, 1),
    "linkname": (157, 100),
    "magic": (257, 8),
    "uname": (265, 32),
    "gname": (297, 32),
    "devmajor": (329, 8),
    "devminor": (337, 8),
    "prefix": (345, 155),
    "padding": (500, 12),
}
NUMBERS = ("mode", "uid", "gid", "size", "mtime", "devmajor", "devminor")


class Level(NamedTuple):
    """One archive as headers (extended ones included) with bodies, and what ends it."""

    members: list[tuple[bytes, bytes]]
    end: bytes

    def bytes(self) -> bytes:
        return b"".join(headers + corpus.padded(body) for headers, body in self.members) + self.end


def parsed(data: bytes) -> Level:
    """Take a well-formed archive apart."""
    members, at, headers = [], 0, b""
    while data[at]:
        block = data[at : at + 512]
        size = int(block[124:135], 8)
        whole = size + -size % 512
        if block[156:157] in b"xL":
            headers += data[at : at + 512 + whole]
        else:
            members.append((headers + block, data[at + 512 : at + 512 + size]))
            headers = b""
        at += 512 + whole
    return Level(members, data[at:])


def field(block: bytes, name: str, value: bytes) -> bytes:
    """Put a value into a header block, cut or filled with NULs, and correct the checksum."""
    at, length = FIELDS[name]
    return corpus.checksummed(block[:at] + value[:length].ljust(length, b"\0") + block[at + length :])


def number_forms(chance: random.Random, value: int, length: int) -> bytes:
    """Write a number in one of the ways that some program reads."""
    octal = b"%o" % value
    forms: list[bytes] = [
        octal.rjust(length - 1, b"0") + b"\0",
        octal.rjust(length - 1, b"0") + b" ",
        octal.rjust(length, b"0"),
        octal.rjust(length - 2, b"0") + b" \0",
        octal.rjust(length - 1, b" ") + b"\0",
        octal + b"\0",
        octal + b" " * (length - len(octal)),
        octal + b"\0" + b"7" * (length - len(octal) - 1),
        octal + b" 7",
        octal + b"8\0",
        b"\t" + octal + b"\0",
        b"\0" + octal,
        b"+" + octal,
        b"-" + octal,
        b"0o" + octal,
        b"0x%x" % value,
        octal[:1] + b"_" + octal[1:],
        b"\x80" + value.to_bytes(length - 1, "big"),
        b"\x80\x01" + value.to_bytes(length - 2, "big"),
        b"\xff" * (length - 2) + b"\xfe\x00",
        bytes(length),
        b" " * length,
        b"7" * length,
    ]
    return chance.choice(forms)


def bent_header(chance: random.Random, block: bytes) -> bytes:
    """Return a header with one field changed."""
    name = chance.choice(list(FIELDS))
    at, length = FIELDS[name]
    old = block[at : at + length]
    if name in NUMBERS:
        digits = re.match(rb"[0-7]*", old)
        value = (
            int(digits[0] or b"0", 8)
            if digits and chance.random() < 0.7
            else chance.choice((0, 1, 512, 1024, 4096, 0o4755))
        )
        return field(block, name, number_forms(chance, value, length))
    if name == "kind":
        return field(
            block, name, chance.choice([b"\0", b"7", b"5", b"1", b"2", b"S", b"x", b"g", b"L", b"V", b" "])
        )
    if name == "magic":
        values = [
            corpus.GNU,
            corpus.POSIX,
            b"ustar\x0001",
            b"ustar\0\0\0",
            b"ustar \0\0",
            bytes(8),
            b"ustar  0",
        ]
        return field(block, name, chance.choice(values))
    text = old.partition(b"\0")[0]
    junk = chance.choice([b"a", b"a/", b"/", b"../a", b"12345670123 ", b"\xff", b"tar\0", b"\1", EVIL[:100]])
    if name == "prefix" and chance.random() < 0.5:
        block = field(block, "magic", corpus.GNU)
    if name == "prefix" and chance.random() < 0.6:
        start, junk = chance.choice(
            [
                (0, b"12345670123\0"),
                (41, b"1"),
                (131, b"12345670123 12345670123 "),
                (137, b"\1"),
                (138, b"00000000001\0"),
                # The sparse map, the flag that another one follows, and the size with the holes, of GNU.
                (41, b"00000000000\x0000000000010\0"),
                (138, b"\x80" + (5).to_bytes(11, "big")),
                (154, b"x"),
            ]
        )
        return field(block, name, bytes(start) + junk)
    return field(
        block, name, chance.choice([junk, text + b"\0" + junk, text + junk, junk + text, b"", text + b"/"])
    )


def extended(chance: random.Random, name: str, size: int) -> bytes:
    """Return an extended header for a member of this name and size; true, false or malformed."""
    records: list[dict[str, str] | bytes] = [
        {"path": name},
        {"path": "evil"},
        {"path": name + "/"},
        {"path": "./" + name},
        {"path": name, "mtime": "1.5"},
        {"mtime": "1700000000.123456789", "atime": "1", "ctime": "-1"},
        {"mtime": chance.choice(["", "x", "1e9", "99999999999999999999"])},
        {"uid": "4294967295", "gid": "70000", "uname": "user", "gname": "gröup"},
        {"size": str(size)},
        {"size": "0" + str(size)},
        {"size": str(chance.choice((0, 1, 512, size + 512, max(size - 1, 0))))},
        {"comment": "x" * chance.randrange(0, 600)},
        {"comment": "a\n12 path=evil\n"},
        {"uname": "a\n12 path=evil\n"},
        {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": "evil",
            "GNU.sparse.realsize": "1",
        },
        {"GNU.sparse.name": "evil"},
        {"SCHILY.realsize": "1"},
        {"linkpath": "evil"},
        {"hdrcharset": "BINARY", "path": "evil"},
        b"012 path=ev\n",
        b"12  path=ev\n",
        b"13 \npath=evi\n"[:13],
        b"12 path=a\0b\n",
        b"9 path=\n\n",
        b"30 mtime=1\n12 path=evil\n",
        b"",
    ]
    made = corpus.pax(chance.choice(records), chance.choice(["PaxHeaders.0/x", name, "././@PaxHeader", "x/"]))
    return made.replace(b"x", b"g", 1) if chance.random() < 0.05 else made


class Bender:
    """Makes one structural change to the members of an archive, most of them at one random member."""

    def __init__(self, chance: random.Random, level: Level) -> None:
        self.chance = chance
        self.members = list(level.members)
        self.end = level.end
        self.at = chance.randrange(len(self.members)) if self.members else 0
        self.headers, self.body = self.members[self.at] if self.members else (corpus.header(b"x"), b"")
        self.block, self.before = self.headers[-512:], self.headers[:-512]
        self.name = self.block[:100].rstrip(b"\0").decode(errors="replace")

    def put(self, headers: bytes, body: bytes | None = None) -> None:
        """Replace the member."""
        self.members[self.at : self.at + 1] = [(headers, self.body if body is None else body)]

    def bend_header(self) -> None:
        """Change a field of its header."""
        self.put(self.before + bent_header(self.chance, self.block))

    def extend(self) -> None:
        """Put an extended header before it."""
        self.put(self.before + extended(self.chance, self.name, len(self.body)) + self.block)

    def give_long_name(self) -> None:
        """Give it a name, or a link's target, by an extension of GNU tar."""
        name = self.name
        long = self.chance.choice([name, "evil", name + "\0evil", "e" * 120, "d/" * 60 + "e"])
        extension = self.chance.choice(["L", "L", "K"]).encode()
        block = field(self.block, "magic", self.chance.choice([corpus.GNU, corpus.POSIX]))
        self.put(
            corpus.member("././@LongLink", long.encode() + b"\0", kind=extension, magic=corpus.GNU)
            + field(block, "name", long.encode())
        )

    def give_two_sizes(self) -> None:
        """Let the size in its header lead elsewhere than the size in its extended header."""
        size = len(self.body)
        wrong = max(0, size + self.chance.choice((-1024, -512, 512, 1024, 2048, -size)))
        self.put(corpus.pax({"size": str(size)}) + field(self.block, "size", b"%011o\0" % wrong))

    def change_end(self) -> None:
        """End the archive too early, too late or twice."""
        ends = [bytes(size) for size in (0, 512, 1031, 1536, 10240)]
        self.end = self.chance.choice([*ends, bytes(1024) + EVIL, bytes(512) + EVIL, EVIL])

    def insert(self) -> None:
        """Insert a copy of the member, or an attacker's."""
        evil = parsed(EVIL).members
        more = self.chance.choice([self.members[self.at], *evil]) if self.members else evil[0]
        self.members.insert(self.at, more)

    def shuffle(self) -> None:
        """Change the order of the members."""
        self.chance.shuffle(self.members)

    def rewrite_checksum(self) -> None:
        """Write its checksum in another form: another base, other padding, or a sum of signed bytes."""
        block = self.block
        checksum = sum(block) - sum(block[148:156]) + 8 * ord(" ")
        form = number_forms(self.chance, checksum, 8)
        if self.chance.random() < 0.3:
            block = corpus.checksummed(block[:265] + b"\xe9\xe9" + block[267:])
            plain = block[:148] + b" " * 8 + block[156:]
            form = b"%06o\0 " % (sum(byte - 256 if byte > 127 else byte for byte in plain) % 2**18)
        self.put(self.before + block[:148] + form[:8].ljust(8, b"\0") + block[156:])

    def insert_gap(self) -> None:
        """Insert blocks of zeros, or an attacker's, between two members."""
        gap = self.chance.choice([bytes(512), bytes(1024), EVIL, b"\1" * 512])
        self.members.insert(self.at, (gap[:512], gap[512:]))

    def change_padding(self) -> None:
        """Write other bytes than zeros after its content."""
        padding = self.chance.choice([b"\1", b"evil"])
        if self.body and len(self.body) % 512:
            self.put(self.headers, self.body + bytes(-len(self.body) % 512 - len(padding)) + padding)


CHANGES = (
    *(Bender.bend_header,) * 4,
    *(Bender.extend,) * 2,
    Bender.give_long_name,
    Bender.give_two_sizes,
    Bender.change_end,
    Bender.insert,
    Bender.shuffle,
    Bender.rewrite_checksum,
    Bender.insert_gap,
    Bender.change_padding,
)
"""The structural changes; one that is listed more often is made more often."""


def bent_level(chance: random.Random, level: Level) -> Level:
    """Return an archive with one structural change."""
    bender = Bender(chance, level)
    chance.choice(CHANGES)(bender)
    return Level(bender.members, bender.end)


def gzip_forms(chance: random.Random, data: bytes) -> bytes:
    """Return one gzip stream or several, with and without the optional parts."""
    raw = zlib.compressobj(chance.choice((0, 1, 9)), zlib.DEFLATED, -15)
    deflated = raw.compress(data) + raw.flush()
    tail = struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)
    flags = chance.choice((0, 0, 1, 2, 4, 8, 8, 16, 12, 32, 64, 128))
    head = b"\x1f\x8b\x08" + bytes([flags]) + struct.pack("<I", chance.choice((0, 1700000000))) + b"\0\xff"
    if flags & 4:
        extra = EVIL if chance.random() < 0.8 else b""
        head += struct.pack("<H", len(extra)) + extra
    if flags & 8:
        head += chance.choice([b"data.tar", b"", b"x" * 600]) + b"\0"
    if flags & 16:
        head += b"comment\0"
    if flags & 2:
        head += struct.pack("<H", zlib.crc32(head) & 0xFFFF)
    return head + deflated + tail + after(chance, gzip.compress(EVIL, mtime=0), gzip.compress(b"", mtime=0))


def xz_forms(chance: random.Random, data: bytes) -> bytes:
    """Return one xz stream or several, with several checks, filters and dictionaries."""
    check = chance.choice((lzma.CHECK_NONE, lzma.CHECK_CRC32, lzma.CHECK_CRC64, lzma.CHECK_SHA256))
    made = lzma.compress(data, check=check, preset=chance.choice((0, 6)))
    return made + after(chance, lzma.compress(EVIL), lzma.compress(b""))


def after(chance: random.Random, *streams: bytes) -> bytes:
    """Return the bytes after a compressed stream: mostly none."""
    if chance.random() < 0.6:
        return b""
    return chance.choice([b"\0", bytes(4), bytes(512), b"\1", EVIL, *streams])


COMPRESSION: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "": lambda _chance, data: data,
    ".gz": gzip_forms,
    ".xz": xz_forms,
}


class Base(NamedTuple):
    """A genuine artifact, taken apart."""

    suffix: str
    outer: Level
    header: Level
    payload: Level


def base(artifact: bytes) -> Base:
    """Take apart what mender-artifact wrote."""
    outer = parsed(artifact)
    names = [headers[-512:][:100].rstrip(b"\0").decode() for headers, _ in outer.members]
    suffix = names[-1].removeprefix("data/0000.tar")
    unpack: Callable[[bytes], bytes] = {".gz": gzip.decompress, ".xz": lzma.decompress}.get(suffix, bytes)
    stored = [unpack(body) for _, body in outer.members[-2:]]
    return Base(suffix, outer, parsed(stored[0]), parsed(stored[1]))


def bent(chance: random.Random, bases: Sequence[Base]) -> bytes:
    """Return a changed artifact; the files in its manifest stay, as with a signature."""
    chosen = chance.choice(bases)
    outer, header, payload = chosen.outer, chosen.header, chosen.payload
    where = chance.randrange(10)
    pack = COMPRESSION[chosen.suffix]
    head, body = outer.members[-2][1], outer.members[-1][1]
    if where < 5 or where == 9:
        payload = bent_level(chance, payload)
        if chance.random() < 0.2:
            payload = bent_level(chance, payload)
        body = corpus.compressed(payload.bytes(), chosen.suffix)
    elif where == 5:
        header = bent_level(chance, header)
        head = corpus.compressed(header.bytes(), chosen.suffix)
    elif where == 6:
        body = pack(chance, payload.bytes())
    members = [*outer.members[:-2], _resized(outer.members[-2], head), _resized(outer.members[-1], body)]
    if head != outer.members[-2][1]:
        members = _summed(members, f"header.tar{chosen.suffix}", head)
    outer = Level(members, outer.end)
    if where >= 7:
        outer = bent_level(chance, outer)
    return outer.bytes()


def _resized(member: tuple[bytes, bytes], body: bytes) -> tuple[bytes, bytes]:
    return field(member[0], "size", b"%011o\0" % len(body)), body


def _summed(members: list[tuple[bytes, bytes]], name: str, content: bytes) -> list[tuple[bytes, bytes]]:
    """Correct the line of the manifest for the header, which a signature would not allow."""
    made = []
    for headers, body in members:
        if headers[:9] == b"manifest\0":
            lines = body.decode().splitlines(keepends=True)
            body = "".join(
                f"{corpus.sha256(content)}  {name}\n" if line.endswith(f"  {name}\n") else line
                for line in lines
            ).encode()
        made.append((headers, body))
    return made
