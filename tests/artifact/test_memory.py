"""How much memory the verification of an artifact takes."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import corpus
from helpers.corpus import END, PAYLOAD, Artifact, long_name, member, pax
from helpers.device import REPO
from helpers.verifying import MIB
from helpers.zstd import Zstd, zst

MEASURE = """
import sys
from mender_oneshot import errors
from mender_oneshot.artifact import verify as artifact
with open(sys.argv[1], "rb") as file:
    try:
        artifact.verify(file, device_type="board")
        print("accepted")
    except errors.ArtifactRejected as rejection:
        print(rejection)
# Not ru_maxrss: on Linux that survives exec, and would be the test's own.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peak(path: Path) -> tuple[str, float]:
    """Return the answer of a fresh process to an artifact, and the peak of its memory in MiB."""
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], cwd=REPO, capture_output=True, text=True, check=True
    )
    said, kibibytes = run.stdout.splitlines()
    return said, int(kibibytes) / 1024


BIG = 128 * MIB
BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    # name: the artifact, words of the answer
    "payload.gz": (lambda: Artifact(suffix=".gz", files={"app": bytes(BIG)}).bytes(), "accepted"),
    "header.gz": (
        lambda: Artifact(suffix=".gz", scripts={"ArtifactInstall_Enter_00": bytes(BIG)}).bytes(),
        "larger than",
    ),
    "header.xz": (
        lambda: Artifact(suffix=".xz", scripts={"ArtifactInstall_Enter_00": bytes(BIG)}).bytes(),
        "larger than",
    ),
    "zeros after the end": (
        lambda: Artifact(suffix=".gz", payload_tar=PAYLOAD + bytes(BIG)).bytes(),
        "has trailing data",
    ),
    "long names": (
        lambda: Artifact(
            scripts={}, header_tar=(pax({"path": "e" * 4000}) + member("e" * 100)) * 3000
        ).bytes(),
        ", expected",
    ),
    "one long name": (
        lambda: Artifact(suffix=".gz", payload_tar=long_name(bytes(BIG))).bytes(),
        "larger than",
    ),
    "many files": (
        lambda: Artifact(files={f"{number:05}": b"" for number in range(9000)}).bytes(),
        "accepted",
    ),
    "many members": (
        lambda: Artifact(payload_tar=member("app", b"content of app\n") * 100_000).bytes(),
        "twice",
    ),
    "many lines": (
        lambda: Artifact(manifest=b"".join(b"%064x  %d\n" % (n, n) for n in range(1_000_000))).bytes(),
        "larger than",
    ),
    "many short lines": (lambda: Artifact(manifest=b"\n" * MIB).bytes(), "line 1 "),
    "lists": (lambda: Artifact(meta_data=b'{"a":[' + b"[]," * 87_000 + b"0]}").bytes(), "accepted"),
    "objects": (lambda: Artifact(meta_data=b'{"a":[' + b'{"":0},' * 37_000 + b"0]}").bytes(), "accepted"),
    "keys": (
        lambda: Artifact(
            type_info=b'{"type":"app","artifact_provides":{'
            + b",".join(b'"%x":0' % number for number in range(24_000))
            + b"}}"
        ).bytes(),
        "not a plain string",
    ),
    "deep": (lambda: Artifact(type_info=b"[" * 262_000).bytes(), "not JSON"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_no_artifact_takes_more_than_64_mib(tmp_path: Path, name: str) -> None:
    make, words = BOMBS[name]
    file = tmp_path / "bomb.mender"
    file.write_bytes(make())
    output, mebibytes = peak(file)
    assert words in output
    print(f"{name}: {mebibytes:.0f} MiB")
    assert mebibytes < 64


def test_a_zstd_bomb_takes_less_than_64_mib(zstd: Zstd, tmp_path: Path) -> None:
    file = tmp_path / "bomb.mender"
    file.write_bytes(zst(zstd, lambda _: zstd.compress(member("app", bytes(128 * MIB)) + END)))
    said, mebibytes = peak(file)
    assert "does not match its checksum" in said
    print(f"zstd: {mebibytes:.0f} MiB")
    assert mebibytes < 64


def test_an_xz_payload_takes_its_dictionary_and_little_more(tmp_path: Path) -> None:
    # 28 means 64 MiB, as mender-artifact writes; any content of that size fills the dictionary.
    content = bytes(80 * MIB)
    stored = corpus.xz_with_dictionary(member("app", content) + END, 28)
    file = tmp_path / "big.mender"
    file.write_bytes(Artifact(suffix=".xz", files={"app": content}, stored_payload=stored).bytes())
    said, mebibytes = peak(file)
    assert said == "accepted"
    print(f"xz: {mebibytes:.0f} MiB")
    assert mebibytes < 64 + 32
