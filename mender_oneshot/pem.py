"""Files that hold a key or a certificate: read, and what is wrong with them before a library says less."""

import os

from . import disk, errors

LIMIT = 1 << 20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read(name: str, path: str) -> bytes:
    """Read the file that the setting `name` points to; raises `errors.SettingsError`."""
    if problem := unreadable(path):
        raise errors.SettingsError(f"{name} {path} {problem}")
    try:
        content = disk.read(path, LIMIT)
    except errors.Error as error:
        raise errors.SettingsError(f"{name} cannot be used. {error}") from error
    return content or b""


def unreadable(path: str) -> str:
    """Say, as the rest of a sentence that begins with the path, why there is no file; "" if there is one."""
    if clause := disk.dangling_link(path):
        link, _, rest = clause.partition(" is a link to ")
        place = "is" if link == path else f"is missing, for {link} is"
        return f"{place} a link to {rest}."
    try:
        os.stat(path)
    except FileNotFoundError:
        return "does not exist; put the file there, or correct the path."
    except OSError as error:
        return f"cannot be read ({error.strerror}); check its permissions and its directory."
    if not os.path.isfile(path):
        return "is not a regular file; correct the path."
    if not os.access(path, os.R_OK):
        return "cannot be read by this user; run this as root."
    return ""


def blocks(content: bytes) -> list[tuple[str, bytes]]:
    """Return the blocks of a PEM file with their labels, such as PRIVATE KEY."""
    found: list[tuple[str, bytes]] = []
    lines: list[bytes] = []
    label = b""
    for line in content.removeprefix(BYTE_ORDER_MARK).splitlines():
        line = line.strip()
        if line.startswith(b"-----BEGIN ") and line.endswith(b"-----"):
            label, lines = line[11:-5], []
        lines.append(line)
        if label and line == b"-----END " + label + b"-----":
            found.append((label.decode("ascii", "replace"), b"\n".join(lines) + b"\n"))
            label = b""
    return found


def find(content: bytes, wanted: str) -> bytes:
    """Return the first block whose label ends with `wanted`, or b""."""
    return next((block for label, block in blocks(content) if label.endswith(wanted)), b"")


def is_encrypted(block: bytes) -> bool:
    """Say whether a private key wants a passphrase, in the form of PKCS#8 or the older one."""
    return block.startswith(b"-----BEGIN ENCRYPTED ") or b"\nProc-Type: 4,ENCRYPTED" in block


def why_none(content: bytes, wanted: str) -> str:
    """Say, as the rest of a sentence that begins with the path, why a file has no block of a kind."""
    labels = [label for label, _ in blocks(content)]
    if labels:
        shown = "".join(letter if letter.isprintable() else "?" for letter in labels[0])[:40]
        return f"holds no {wanted.lower()} (found: {shown})"
    if not content.strip():
        return "is empty"
    if content[:1] == b"\x30":
        return "is DER, not PEM"
    if b"-----BEGIN " in content:
        return "is damaged"
    return "is not PEM"


def encrypted(name: str, path: str) -> errors.SettingsError:
    """Say that a private key has a passphrase, and how to remove it without making another key."""
    return errors.SettingsError(
        f"{name} {path} has a passphrase, and nobody is there to type it; remove it: "
        f"(umask 077; openssl pkey -in {path} -out {path}.new && mv {path}.new {path})"
    )
