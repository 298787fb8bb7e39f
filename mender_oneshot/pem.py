"""Read PEM files, and explain what is wrong with one more precisely than OpenSSL does."""

import os

from . import disk, errors

LIMIT = 1 << 20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read(name: str, path: str) -> bytes:
    """Return the content of the file that the setting `name` points to.

    Raises `errors.SettingsError` if the file is missing, is not a regular file, is larger than 1 MiB or
    cannot be read.
    """
    if problem := unreadable(path):
        raise errors.SettingsError(f"{name} {path} {problem}")
    try:
        content = disk.read(path, LIMIT)
    except errors.Error as error:
        raise errors.SettingsError(f"{name} cannot be used. {error}") from error
    return content or b""


def unreadable(path: str) -> str:
    """Return why a file cannot be read, as the end of a message that begins with the path, or ""."""
    if clause := disk.dangling_link(path):
        link, _, rest = clause.partition(" is a link to ")
        place = "is" if link == path else f"is missing, because {link} is"
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
    """Return the first block whose label ends with `wanted`, or b"" if there is none."""
    return next((block for label, block in blocks(content) if label.endswith(wanted)), b"")


def is_encrypted(block: bytes) -> bool:
    """Return whether a private key has a passphrase, in PKCS#8 or the traditional OpenSSL format."""
    return block.startswith(b"-----BEGIN ENCRYPTED ") or b"\nProc-Type: 4,ENCRYPTED" in block


def why_none(content: bytes, wanted: str) -> str:
    """Return why a file has no block of a kind, as the middle of a message that begins with the path."""
    labels = [label for label, _ in blocks(content)]
    if labels:
        shown = "".join(character if character.isprintable() else "?" for character in labels[0])[:40]
        return f"contains no {wanted.lower()} (found: {shown})"
    if not content.strip():
        return "is empty"
    if content[:1] == b"\x30":
        return "is DER, not PEM"
    if b"-----BEGIN " in content:
        return "is corrupt"
    return "is not PEM"


def encrypted(name: str, path: str) -> errors.SettingsError:
    """Return the error for a private key with a passphrase; it shows how to remove that and keep the key."""
    return errors.SettingsError(
        f"{name} {path} has a passphrase, which cannot be entered here; remove it: "
        f"(umask 077; openssl pkey -in {path} -out {path}.new && mv {path}.new {path})"
    )
