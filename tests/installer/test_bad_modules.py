"""Modules and scripts that hang, flood, end early or answer nonsense: a sentence, and nothing half done."""

import subprocess
from pathlib import Path

import pytest
from helpers.artifacts import make_artifact
from helpers.device import Device
from helpers.update_module import Recorder, device_script

CONTENT = b"0123456789abcdef" * 40_000
STREAMS = """#!/bin/sh
echo "$1" >>{log}
case $1 in
ProvidePayloadFileSizes) echo {sizes} ;;
SupportsRollback) echo Yes ;;
Download*)
    while read -r line <stream-next && [ -n "$line" ]; do
        set -- $line
        {read}
        echo "$line" >>{log}.lines
    done ;;
esac
"""


@pytest.fixture
def device(device: Device) -> Device:
    device.configure(ModuleTimeoutSeconds=2, StateScriptTimeoutSeconds=2)
    return device


@pytest.fixture
def module(device: Device) -> Recorder:
    return Recorder(device)


def artifact(device: Device, module: Recorder, **options: object) -> str:
    path = device.root / "a.mender"
    options = {"payload": {"first": CONTENT, "second": b"", "third": b"3"}} | options
    make_artifact(path, payload_type=module.name, scripts=module.scripts(), **options)  # type: ignore[arg-type]
    return str(path)


def streaming(
    device: Device, module: Recorder, *, sizes: str = "No", read: str = 'cat "$1" >"tmp/$(basename "$1")"'
) -> None:
    module.program.write_text(STREAMS.format(log=module.log, sizes=sizes, read=read))


def tree(device: Device) -> Path:
    return device.data / "modules/v3/payloads/0000/tree"


@pytest.mark.parametrize("sizes", ["Yes", "No"])
def test_a_module_reads_every_file_as_a_stream(device: Device, module: Recorder, sizes: str) -> None:
    streaming(device, module, sizes=sizes)
    device.ok("install", artifact(device, module))
    names = {"first": len(CONTENT), "second": 0, "third": 1}
    lines = [
        f"streams/{name} {size}" if sizes == "Yes" else f"streams/{name}" for name, size in names.items()
    ]
    assert Path(f"{module.log}.lines").read_text().splitlines() == lines
    assert (tree(device) / "tmp" / "first").read_bytes() == CONTENT
    assert (tree(device) / "tmp" / "second").read_bytes() == b""
    assert not (tree(device) / "files").exists()
    assert not (tree(device) / "streams").exists()
    assert not (tree(device) / "stream-next").exists()
    assert ("DownloadWithFileSizes" if sizes == "Yes" else "Download") in module.calls


def test_a_module_that_reads_no_stream_gets_files(device: Device, module: Recorder) -> None:
    device.ok("install", artifact(device, module))
    files = tree(device) / "files"
    assert {file.name: file.read_bytes() for file in files.iterdir()} == {
        "first": CONTENT,
        "second": b"",
        "third": b"3",
    }
    assert {file.stat().st_mode & 0o777 for file in files.iterdir()} == {0o644}


BAD_DOWNLOADS = {
    "fails at once": ("exit 5", "exit code 5"),
    "fails after a file": ('cat "$1" >/dev/null; exit 6', "exit code 6"),
    "ends early and well": ('cat "$1" >/dev/null; exit 0', "stopped reading"),
    "closes a stream early": ('head -c 10 "$1" >/dev/null', "stopped reading"),
    "hangs before a stream": ("sleep 60", "within 2 s"),
    "hangs in a stream": ('exec 3<"$1"; sleep 60', "within 2 s"),
}


@pytest.mark.parametrize("case", BAD_DOWNLOADS)
def test_a_download_that_goes_wrong_changes_nothing(device: Device, module: Recorder, case: str) -> None:
    read, words = BAD_DOWNLOADS[case]
    streaming(device, module, read=read)
    done = device.run("install", artifact(device, module))
    assert done.code == 70, done
    assert words in done.err
    assert "ArtifactInstall" not in module.calls
    assert module.calls[-1] == "Cleanup"
    assert not tree(device).exists()
    assert device.ok("show-artifact").out == "release-1\n"


ANSWERS = {
    "nonsense": ("echo Perhaps", "Perhaps"),
    "two lines": ("echo Yes; echo Yes", "Yes\\nYes"),
    "a flood": ("yes", "4096"),
    "a failure": ("exit 9", "exit code 9"),
    "silence and a hang": ("sleep 60", "within 2 s"),
}


@pytest.mark.parametrize("case", ANSWERS)
@pytest.mark.parametrize("question", ["NeedsArtifactReboot", "ProvidePayloadFileSizes"])
def test_a_bad_answer_fails_the_installation(
    device: Device, module: Recorder, question: str, case: str
) -> None:
    code, words = ANSWERS[case]
    text = module.program.read_text()
    module.program.write_text(
        text.replace("call=$1\n", f'call=$1\nif [ "$1" = {question} ]; then {code}; exit 0; fi\n')
    )
    done = device.run("install", artifact(device, module))
    assert done.code == 70, done
    assert words in done.err
    assert question in done.err
    assert module.calls[-1] == "Cleanup"
    assert device.ok("show-artifact").out == "release-1\n"


def test_the_children_of_a_module_that_hangs_are_stopped(device: Device, module: Recorder) -> None:
    number = device.root / "number"
    module.at("ArtifactInstall", f"sleep 61 & echo $! >{number}; sleep 60")
    assert device.run("install", artifact(device, module)).code == 70
    process = Path("/proc") / number.read_text().strip() / "stat"
    assert not process.exists() or process.read_text().split()[2] == "Z"


def test_a_module_that_leaves_a_child_behind_is_not_waited_for(device: Device, module: Recorder) -> None:
    number = device.root / "number"
    module.at("ArtifactInstall", f"sleep 61 >/dev/null 2>&1 & echo $! >{number}")
    device.ok("install", artifact(device, module))
    subprocess.run(["kill", number.read_text().strip()], check=True)


SCRIPTS = {
    "hangs": ("#!/bin/sh\nsleep 60\n", "within 2 s"),
    "has no such interpreter": ("#!/no/such/interpreter\n", "interpreter"),
    "has CRLF line ends": ("#!/bin/sh\r\nexit 0\r\n", "line endings"),
    "is no program": ("just words\n", "interpreter"),
    "fails": ("#!/bin/sh\nexit 7\n", "exit code 7"),
    "is killed": ("#!/bin/sh\nkill -11 $$\n", "signal 11"),
}


@pytest.mark.parametrize("case", SCRIPTS)
def test_a_state_script_that_goes_wrong_is_named(device: Device, module: Recorder, case: str) -> None:
    text, words = SCRIPTS[case]
    path = device.root / "a.mender"
    scripts = module.scripts() | {"ArtifactInstall_Enter_00": text}
    make_artifact(path, payload_type=module.name, scripts=scripts)
    done = device.run("install", str(path))
    assert done.code == 70, done
    assert "ArtifactInstall_Enter_00" in done.err
    assert words in done.err
    assert "ArtifactRollback" in module.calls


def test_scripts_that_are_not_executable_are_skipped(device: Device, module: Recorder) -> None:
    device_script(device, "Download_Leave_00", "#!/bin/sh\nexit 1\n").chmod(0o644)
    device.ok("install", artifact(device, module))


def test_scripts_of_another_version_are_rejected(device: Device, module: Recorder) -> None:
    device_script(device, "Download_Leave_00", "#!/bin/sh\n")
    (device.conf / "scripts" / "version").write_text("4\n")
    done = device.run("install", artifact(device, module))
    assert done.code == 70
    assert "version '4'" in done.err
    assert "ArtifactInstall" not in module.calls


def test_a_payload_in_a_directory_is_rejected(device: Device, module: Recorder) -> None:
    done = device.run("install", artifact(device, module, payload={"a/b": b"x"}))
    assert done.code == 70
    assert "a/b" in done.err


@pytest.mark.parametrize("kind", ["../../../bin/sh", "a/b", ".", ".."])
def test_a_payload_type_that_leads_out_of_the_directory_is_rejected(device: Device, kind: str) -> None:
    path = make_artifact(device.root / "a.mender", payload_type=kind)
    assert device.run("install", str(path)).code == 78
