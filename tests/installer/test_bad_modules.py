"""Modules that hang, flood, answer nonsense, or break their tree: a sentence, and nothing half done."""

import os
import subprocess
from pathlib import Path

import pytest
from helpers.clock_and_disk import small_disk
from helpers.device import Device, newest_only
from helpers.update_module import TREE, Recorder, failed_install, left_running, next_install
from helpers.waiting import until

pytestmark = newest_only
LOG_MAX = 2 << 20
"""More than the log of an installation may have, and less than a module writes in a moment."""


@pytest.fixture
def device(tmp_path: Path, python: str) -> Device:
    """A device without a server; its modules have a second for each call."""
    made = Device(tmp_path / "device", python)
    made.configure(ModuleTimeoutSeconds=1)
    return made


@pytest.fixture
def module(device: Device) -> Recorder:
    return Recorder(device)


# --- answers

ANSWERS = {
    "nonsense": ("echo Perhaps", "'Perhaps'"),
    "another case": ("echo yes", "'yes'"),
    "two lines": ("echo Yes; echo Yes", "'Yes\\nYes'"),
    "two empty lines": ("echo; echo", "'\\n'"),
    "a blank": ("echo ' Yes'", "' Yes'"),
    "a line of Windows": ("printf 'Yes\\r\\n'", "'Yes\\r'"),
    "binary": ("printf '\\377\\000\\033[2J'", "'\N{REPLACEMENT CHARACTER}\\x00\\x1b[2J'"),
    "a flood": ("yes", "more than 4096 bytes"),
    "a failure": ("exit 9", "exit code 9"),
    "a signal": ("kill -SEGV $$", "signal 11"),
    "silence and a hang": ("sleep 60", "within 1 s"),
    "an answer and a hang": ("echo Yes; sleep 60", "within 1 s"),
}


def answer(module: Recorder, question: str, code: str) -> None:
    text = module.program.read_text()
    line = f'call=$1\nif [ "$1" = {question} ]; then {code}; exit 0; fi\n'
    module.program.write_text(text.replace("call=$1\n", line))


@pytest.mark.parametrize("case", ANSWERS)
def test_a_bad_answer_fails_the_installation(device: Device, module: Recorder, case: str) -> None:
    code, words = ANSWERS[case]
    answer(module, "NeedsArtifactReboot", code)
    failed_install(device, module, "NeedsArtifactReboot", words)
    assert "ArtifactRollback" in module.calls


@pytest.mark.parametrize("case", ["nonsense", "silence and a hang"])
def test_a_bad_answer_before_the_download_changes_nothing(
    device: Device, module: Recorder, case: str
) -> None:
    code, words = ANSWERS[case]
    answer(module, "ProvidePayloadFileSizes", code)
    failed_install(device, module, "ProvidePayloadFileSizes", words)
    assert module.calls == ["Cleanup"]


def test_a_bad_answer_to_the_question_of_rollback_leaves_the_device_inconsistent(
    device: Device, module: Recorder
) -> None:
    answer(module, "SupportsRollback", "echo maybe")
    failed_install(device, module, "SupportsRollback", "maybe", name="release-2_INCONSISTENT")
    assert "ArtifactRollback" not in module.calls
    module.write("No", "Yes")
    next_install(device, module)


@pytest.mark.parametrize("printed", ["", "echo", "printf No", "echo No; exec >&- 2>&- <&-"])
def test_an_empty_answer_means_no(device: Device, module: Recorder, printed: str) -> None:
    answer(module, "NeedsArtifactReboot", printed or ":")
    device.ok("install", module.artifact(device))


def test_a_child_that_keeps_the_pipe_of_an_answer_is_not_waited_for(device: Device, module: Recorder) -> None:
    answer(module, "NeedsArtifactReboot", f"echo No; sleep 61 2>/dev/null & echo $! >{device.root}/number")
    device.ok("install", module.artifact(device))
    subprocess.run(["kill", (device.root / "number").read_text().strip()], check=True)


# --- calls

CALLS = {
    "ArtifactInstall": (["install"], "release-1"),
    "ArtifactCommit": (["install", "commit"], "release-1"),
    "ArtifactRollback": (["install", "rollback"], "release-2_INCONSISTENT"),
}
"""The commands that lead to a call, and the name of what is installed if it fails."""
ENDS = {"is killed": ("kill -KILL $$", "signal 9"), "hangs": ("sleep 60", "within 1 s")}


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("call", CALLS)
def test_a_call_that_goes_wrong_is_named(device: Device, module: Recorder, call: str, how: str) -> None:
    code, words = ENDS[how]
    commands, name = CALLS[call]
    module.at(call, code)
    for command in commands[:-1]:
        device.ok(command, module.artifact(device))
    done = device.run(commands[-1], *([module.artifact(device)] if commands == ["install"] else []))
    assert done.code == 70, done
    assert f"The update module fake {'failed in' if 'kill' in code else 'did not end'} {call}" in done.err
    assert words in done.err.splitlines()[-1]
    assert device.ok("show-artifact").out == f"{name}\n"
    assert left_running(device) == []
    assert module.calls[-1] == "Cleanup"


@pytest.mark.parametrize("call", ["ArtifactFailure", "Cleanup"])
def test_a_call_at_the_end_changes_no_result_but_the_name(
    device: Device, module: Recorder, call: str
) -> None:
    module.at("ArtifactInstall", "exit 1")
    module.at(call, "sleep 60")
    name = "release-2_INCONSISTENT" if call == "ArtifactFailure" else "release-1"
    assert f"did not end {call} within 1 s" in failed_install(device, module, "exit code 1", name=name)
    next_install(device, module)


CHILDREN = {
    "in the background": "sleep 61 & sleep 60",
    "of a child": "sh -c 'sleep 61 & sleep 62 & wait' & sleep 60",
    "in a group of its own": "timeout 61 sleep 62 & sleep 60",
    "in a session of its own": "setsid sleep 61 & sleep 60",
    "that ignores SIGTERM": "(trap '' TERM; sleep 61) & sleep 60",
    "of a call that fails": "sleep 61 & setsid -w true; exit 3",
    "of a call that is killed": "sleep 61 & kill -9 $$",
}


@pytest.mark.parametrize("case", CHILDREN)
def test_no_child_of_a_call_that_goes_wrong_is_left(device: Device, module: Recorder, case: str) -> None:
    module.at("ArtifactInstall", CHILDREN[case])
    failed_install(device, module, "ArtifactInstall")


def test_a_module_that_ignores_sigterm_is_killed(device: Device, module: Recorder) -> None:
    module.at("ArtifactInstall", "trap '' TERM; while :; do sleep 0.1; done")
    failed_install(device, module, "ArtifactInstall", "within 1 s")
    next_install(device, module)


def test_a_service_that_a_good_call_has_started_is_left_alone(device: Device, module: Recorder) -> None:
    number = device.root / "number"
    module.at("ArtifactInstall", f"sleep 61 >/dev/null 2>&1 & echo $! >{number}")
    module.at("ArtifactCommit", "kill -9 $PPID")
    device.ok("install", module.artifact(device))
    assert device.run("commit").code == -9
    device.ok("resume")
    subprocess.run(["kill", number.read_text().strip()], check=True)


KILL_PARENT = "sh -c 'while kill -0 $0; do :; done; kill -9 $PPID; exec sleep 61' $host"


@pytest.mark.parametrize("child", ["sleep 61", "setsid sleep 61", KILL_PARENT])
def test_what_a_killed_installer_leaves_is_gone_before_the_next_call(
    device: Device, module: Recorder, child: str
) -> None:
    module.at("ArtifactInstall", f"host=$PPID; {child} & kill -9 $host; sleep 60")
    elsewhere = ("sh", "-c", 'exec "$@" 2>/dev/null', "sh")  # what is left would hold our pipe
    assert device.run("install", module.artifact(device), wrapper=elsewhere).code == -9
    expected = ["sleep 60", "sleep 61"] if child == KILL_PARENT else [child[-8:]]
    until(lambda: set(expected) <= set(left_running(device)), "the child runs")
    assert device.run("resume").code == 70
    assert left_running(device) == []
    assert module.calls[-1] == "Cleanup"


@pytest.mark.parametrize(
    ("flood", "end"),
    [
        ("timeout 0.7 yes", "(exit code 4): y.\n"),
        ("timeout 0.7 yes >&2", "(exit code 4): y.\n"),
        ("head -c 9000000 /dev/zero >&2", "(exit code 4); its output is in the log.\n"),
    ],
)
def test_a_flood_of_output_leaves_a_short_log(device: Device, module: Recorder, flood: str, end: str) -> None:
    log = device.data / "sub-updater.log"
    module.at("ArtifactInstall", f"echo the beginning; {flood}; exit 4")
    append = ("sh", "-c", 'exec "$@" 2>>"$0"', str(log))
    assert device.run("install", module.artifact(device), wrapper=append).code == 70
    text = log.read_text()
    assert len(text) < LOG_MAX
    assert "the beginning" in text
    assert "a part of it was removed here" in text
    assert text.endswith(end)


@pytest.mark.parametrize(
    "where", ["NeedsArtifactReboot", "Download", "ArtifactInstall", "ArtifactInstall_Enter"]
)
def test_the_time_limit_of_a_command_ends_what_it_runs(device: Device, module: Recorder, where: str) -> None:
    device.configure(ModuleTimeoutSeconds=60)
    module.at(where, "setsid sleep 61 & sleep 60")
    done = device.run("install", "--max-runtime", "3", module.artifact(device))
    assert done.code == 75, done
    assert where in module.calls or where == "NeedsArtifactReboot"
    assert left_running(device) == []
    done = device.run("resume")
    assert done.code == (0 if where in ("Download", "NeedsArtifactReboot") else 70), done


# --- the tree

TREES = {
    "removes its tree": 'cd /; rm -r "$2"',
    "removes its tree and fails": 'cd /; rm -r "$2"; exit 1',
    "puts a link in its place": 'cd /; rm -r "$2"; ln -s {outside} "$2"',
    "puts a file in its place": 'cd /; rm -r "$2"; touch "$2"',
    "puts a link to its parent into it": "ln -s .. tmp/up; exit 1",
    "makes its tree unwritable": "chmod -R a-rwx .; exit 1",
    "makes a name of bytes": "touch \"$(printf 'tmp/\\377\\n')\"; exit 1",
}


@pytest.mark.parametrize("case", TREES)
def test_a_module_that_breaks_its_tree_harms_nothing_else(
    device: Device, module: Recorder, case: str
) -> None:
    outside = device.root / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    module.at("ArtifactInstall", TREES[case].format(outside=outside))
    done = device.run("install", module.artifact(device))
    if done.code == 0:  # with a link in its place, all calls have worked
        device.ok("commit")
    else:
        assert done.code == 70, done
        assert "fake" in done.err.splitlines()[-1]
    assert os.listdir(outside) == ["precious"]
    assert not os.path.lexists(device.data / TREE)
    next_install(device, module)


def test_a_file_system_that_a_module_has_left_mounted_is_not_emptied(
    device: Device, module: Recorder, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with small_disk(disk, "size=1m"):
        (disk / "precious").touch()
        module.at("ArtifactInstall", f"mkdir 'tmp/a b' && mount --bind {disk} 'tmp/a b' && exit 1")
        failed_install(device, module, "exit code 1")
        assert (disk / "precious").exists()


def test_a_file_system_that_cannot_be_unmounted_is_not_emptied_either(
    device: Device, module: Recorder, tmp_path: Path
) -> None:
    mounted = device.data / TREE / "tmp" / "mnt"
    disk = tmp_path / "disk"
    disk.mkdir()
    with small_disk(disk, "size=1m"):
        (disk / "precious").touch()
        used = f"cd tmp/mnt; setsid sleep 61 >/dev/null 2>&1 & echo $! >{device.root}/number; sleep 0.1"
        module.at("ArtifactInstall", f"mkdir tmp/mnt; mount --bind {disk} tmp/mnt; ({used}); exit 0")
        device.ok("install", module.artifact(device))
        assert "is mounted in it; unmount it" in device.run("commit").err
        assert (disk / "precious").exists()
        done = device.run("install", module.artifact(device))
        assert done.code == 70
        assert "something is mounted on it or uses it; unmount it" in done.err
        assert (disk / "precious").exists()
        subprocess.run(["kill", (device.root / "number").read_text().strip()], check=True)
        until(lambda: not subprocess.run(["umount", str(mounted)], check=False).returncode, "it is unmounted")
        next_install(device, module)


# --- the program

PROGRAMS = {
    "is missing": ("rm $1", "there is no update module"),
    "is not executable": ("chmod a-x $1", "chmod +x"),
    "is a directory": ("rm $1; mkdir $1", "it is a directory"),
    "is a dangling link": ("ln -sf nothing $1", "does not exist"),
    "has CRLF line ends": (r"printf '#!/bin/sh\r\n' >$1", "Windows line endings"),
    "lacks its interpreter": ("echo '#!/no/such' >$1", "names the interpreter /no/such"),
    "is empty": (": >$1", "it is empty"),
    "is no program": ("echo words >$1", "its first line does not begin with #!"),
}


def change(module: Recorder, code: str) -> None:
    subprocess.run(["sh", "-ec", code, "sh", str(module.program)], check=True)


@pytest.mark.parametrize("case", PROGRAMS)
def test_a_module_that_cannot_be_started_is_found_before_anything_begins(
    device: Device, module: Recorder, case: str
) -> None:
    code, words = PROGRAMS[case]
    change(module, code)
    done = device.run("install", module.artifact(device))
    assert done.code == 78, done
    assert words in done.err
    assert module.calls == []
    assert not (device.data / "installer.json").exists()


@pytest.mark.parametrize("case", ["is missing", "is a directory", "lacks its interpreter"])
def test_a_module_that_breaks_between_two_calls_is_named(device: Device, module: Recorder, case: str) -> None:
    device.ok("install", module.artifact(device))
    text, calls = module.program.read_text(), module.calls
    change(module, PROGRAMS[case][0])
    for command in ("commit", "rollback"):
        done = device.run(command)
        assert done.code == 78, done
        assert "can be neither committed nor rolled back in this system" in done.err
        assert PROGRAMS[case][1] in done.err
    assert module.calls == calls
    change(module, "rm -rf $1")
    module.program.write_text(text)
    module.program.chmod(0o755)
    device.ok("commit")
    next_install(device, module)
