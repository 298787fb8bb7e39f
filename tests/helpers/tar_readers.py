"""What other programs read in a tar archive: the names they list and the contents they unpack."""

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

PROGRAMS = {
    "gnu": ["tar"],
    "busybox": ["busybox", "tar"],
    "toybox": ["toybox", "tar"],
    "libarchive": ["bsdtar"],
}
PACKAGES = {"tar": "tar", "busybox": "busybox-static", "toybox": "toybox", "bsdtar": "libarchive-tools"}

LETTERS = {"": "", ".gz": "z", ".xz": "J"}

# One shell for a whole batch: starting a process from Python takes longer than the unpacking.
# -m, -o: times and owners are not compared; a strange one must not be an error.
SCRIPT = """
umask 077
for file in *.tar *.tar.gz *.tar.xz; do
    [ -e "$file" ] || continue
    case $file in *.gz) how=z ;; *.xz) how=J ;; *) how= ;; esac
    mkdir "$OUT/$file"
    "$@" -x${how}mof "$file" -C "$OUT/$file" 2>"$OUT/$file.said" || echo $? >"$OUT/$file.failed"
    "$@" -t${how}f "$file" >"$OUT/$file.names" 2>/dev/null || :
done
"""

Contents = Mapping[str, bytes]


def missing() -> list[str]:
    """Return the packages of the programs that are not installed."""
    return [package for program, package in PACKAGES.items() if not shutil.which(program)]


def stand_ins(name: str) -> set[str]:
    """Return what a program without pax headers may read for a name that does not fit into a header."""
    forms = (name.encode(), name.encode("ascii", "ignore"), name.encode("ascii", "replace"))
    return {form[:100].rstrip(b"/").decode("utf-8", "surrogateescape") for form in forms}


def differences(archives: Mapping[str, tuple[bytes, Contents]], directory: Path) -> list[str]:
    """Return what any program reads differently; the archives are by file name, `*.tar[.gz|.xz]`."""
    directory.mkdir()
    for name, (data, _) in archives.items():
        (directory / name).write_bytes(data)
    found = []
    for program, words in PROGRAMS.items():
        out = directory.parent / f"{directory.name}.{program}"
        out.mkdir()
        environment = {**os.environ, "OUT": str(out), "LC_ALL": "C.UTF-8"}
        subprocess.run(["sh", "-c", SCRIPT, "sh", *words], cwd=directory, env=environment, check=True)
        for name, (_, expected) in archives.items():
            failed = out / f"{name}.failed"
            said = (out / f"{name}.said").read_text(errors="replace").strip()
            why = f"fails: {said[-120:]}" if failed.exists() else ""
            listed = (out / f"{name}.names").read_text(errors="surrogateescape").splitlines()
            why = why or unequal(expected, unpacked(out / name), listed, program)
            if why:
                found.append(f"{program} {name}: {why}")
        shutil.rmtree(out)
    for name, (data, expected) in archives.items():
        contents, listed, why = by_python(data)
        why = why or unequal(expected, contents, listed, "python")
        if why:
            found.append(f"python {name}: {why}")
    shutil.rmtree(directory)
    return found


def unpacked(directory: Path) -> dict[str, bytes]:
    found = {}
    for root, _, files in os.walk(directory):
        for name in files:
            path = Path(root, name)
            found[str(path.relative_to(directory))] = path.read_bytes() if path.is_file() else b"not a file"
    return found


def by_python(data: bytes) -> tuple[dict[str, bytes], list[str], str]:
    contents, listed = {}, []
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:*") as archive:
            for member in archive:
                listed.append(member.name)
                file = archive.extractfile(member)
                contents[member.name] = file.read() if file and member.isreg() else b"not a file"
    except (tarfile.TarError, OSError, EOFError) as error:
        return contents, listed, f"fails: {error}"
    return contents, listed, ""


def unequal(expected: Contents, contents: Contents, listed: list[str], program: str) -> str:
    left = dict(contents)
    names = []
    for name, content in expected.items():
        known_as = {name}
        if program == "busybox":  # which skips pax headers
            known_as |= stand_ins(name)
        there = [one for one in known_as if one in left]
        if len(there) != 1:
            return f"has no {name[:40]!r}, but {sorted(left)!r:.200}"
        if left.pop(there[0]) != content:
            return f"has another content of {name[:40]!r}"
        names.append(there[0])
    if left:
        return f"has {sorted(left)!r:.200} as well"

    return "" if listed == names else f"lists {listed!r:.200} and not {names!r:.200}"
