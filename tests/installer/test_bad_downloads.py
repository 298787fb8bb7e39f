"""The streams of `Download`, and modules that read them wrongly: a sentence, and nothing has changed."""

from pathlib import Path

import pytest
from helpers.device import Device, newest_only
from helpers.update_module import TREE, Recorder, failed_install, next_install

pytestmark = newest_only
CONTENT = b"0123456789abcdef" * 40_000
PAYLOAD = {"first": CONTENT, "second": b"", "third": b"3"}
STREAMS = """#!/bin/sh
echo "$1" >>{log}
case $1 in
ProvidePayloadFileSizes) echo {sizes} ;;
SupportsRollback) echo Yes ;;
Download*)
    {before}
    while read -r line <stream-next && [ -n "$line" ]; do
        set -- $line
        {read}
        echo "$line" >>{log}.lines
    done
    {after} ;;
esac
"""
SAVE = 'cat "$1" >"tmp/$(basename "$1")"'


@pytest.fixture
def device(tmp_path: Path, python: str) -> Device:
    """A device without a server; its modules have a second for each call."""
    made = Device(tmp_path / "device", python)
    made.configure(ModuleTimeoutSeconds=1)
    return made


@pytest.fixture
def module(device: Device) -> Recorder:
    return Recorder(device)


def streaming(module: Recorder, *, sizes: str = "No", **code: str) -> None:
    code = {"before": ":", "read": SAVE, "after": ":"} | code
    module.program.write_text(STREAMS.format(log=module.log, sizes=sizes, **code))


@pytest.mark.parametrize("sizes", ["Yes", "No"])
def test_a_module_reads_every_file_as_a_stream(device: Device, module: Recorder, sizes: str) -> None:
    streaming(module, sizes=sizes)
    device.ok("install", module.artifact(device, payload=PAYLOAD))
    lines = [
        f"streams/{name} {len(content)}" if sizes == "Yes" else f"streams/{name}"
        for name, content in PAYLOAD.items()
    ]
    tree = device.data / TREE
    assert Path(f"{module.log}.lines").read_text().splitlines() == lines
    assert {path.name: path.read_bytes() for path in (tree / "tmp").iterdir()} == PAYLOAD
    for name in ("files", "streams", "stream-next"):
        assert not (tree / name).exists()
    assert ("DownloadWithFileSizes" if sizes == "Yes" else "Download") in module.calls


def test_a_module_that_reads_no_stream_gets_files(device: Device, module: Recorder) -> None:
    device.ok("install", module.artifact(device, payload=PAYLOAD))
    files = device.data / TREE / "files"
    assert {file.name: file.read_bytes() for file in files.iterdir()} == PAYLOAD
    assert {file.stat().st_mode & 0o777 for file in files.iterdir()} == {0o644}


@pytest.mark.parametrize(
    "code", ["exec <&- >&- 2>&-", "mkdir files; touch files/first", "ln -s /etc files", "rm -r streams"]
)
def test_a_module_that_ends_well_gets_files_whatever_it_did_before(
    device: Device, module: Recorder, code: str
) -> None:
    before = Path("/etc/first").exists()
    module.at("Download", code)
    done = device.run("install", module.artifact(device, payload=PAYLOAD))
    if "ln" in code:
        assert done.code == 70
        assert f"removed or replaced {device.data / TREE}/files" in done.err
    else:
        assert done.code == 0, done
        assert (device.data / TREE / "files" / "first").read_bytes() == CONTENT
    assert Path("/etc/first").exists() == before


BAD = {
    "fails at once": ({"before": "exit 5"}, "exit code 5"),
    "hangs at once": ({"before": "sleep 60"}, "within 1 s"),
    "fails after a file": ({"read": "cat $1 >/dev/null; exit 6"}, "exit code 6"),
    "ends after a file": ({"read": "cat $1 >/dev/null; exit 0"}, "stopped reading"),
    "ends after a line": ({"read": "exit 0"}, "stopped reading"),
    "ends before the last line": (
        {"read": "cat $1 >/dev/null; [ $1 != streams/third ] || exit 0"},
        "stopped",
    ),
    "closes a stream early": ({"read": "head -c 10 $1 >/dev/null"}, "stopped reading"),
    "opens the next one twice": ({"read": "read -r line <stream-next"}, "within 1 s"),
    "reads no stream": ({"read": "sleep 60"}, "within 1 s"),
    "hangs in a stream": ({"read": "exec 3<$1; sleep 60"}, "within 1 s"),
    "hangs at the end": ({"after": "sleep 60"}, "within 1 s"),
    "fails at the end": ({"after": "exit 8"}, "exit code 8"),
    "leaves a child with a stream": (
        {"read": "(exec 3<$1; sleep 60) & exec 3<$1; exit 0"},
        "stopped reading",
    ),
    "fails with a child at a stream": ({"read": "(exec 3<$1; sleep 60) & exec 3<$1; exit 4"}, "exit code 4"),
    "leaves a child with the lines": ({"read": "sleep 60 <stream-next & cat $1; exit 0"}, "stopped reading"),
    "removes the next one": ({"before": "rm stream-next; sleep 60"}, "stream-next during Download"),
    "removes a stream": ({"read": "rm $1; sleep 60"}, "streams/first during Download"),
    "removes all streams": ({"read": "cat $1 >/dev/null; rm -r streams"}, "has removed or replaced"),
    "puts a file in a place": ({"before": "rm stream-next; touch stream-next; sleep 9"}, "replaced"),
    "puts a link in a place": ({"before": "ln -sf {outside} stream-next; sleep 9"}, "replaced"),
    # Which file of the tree is missed first depends on how fast it is removed.
    "removes its tree": ({"before": 'rm -r "$2"; sleep 60'}, "has removed or replaced"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_download_that_goes_wrong_changes_nothing(device: Device, module: Recorder, case: str) -> None:
    outside = device.root / "outside"
    outside.write_text("precious")
    code, words = BAD[case]
    streaming(module, **{name: text.replace("{outside}", str(outside)) for name, text in code.items()})
    artifact = module.artifact(device, payload=PAYLOAD)
    failed_install(device, module, "fake", words, artifact=artifact)
    assert "ArtifactInstall" not in module.calls
    assert "Cleanup" in module.calls or case == "removes its tree"
    assert outside.read_text() == "precious"


def test_after_a_bad_download_the_next_one_succeeds(device: Device, module: Recorder) -> None:
    streaming(module, read="exec 3<$1; sleep 60")
    failed_install(device, module, "within 1 s")
    module.write("No", "Yes")
    next_install(device, module)
