"""`--json`: what every command prints, in success and in failure, is what its schema describes.

The fixture's `run` compares each output with the schema; these tests provoke the outputs.
"""

import ast
import fcntl
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.artifacts import make_artifact
from helpers.device import REPO, Device, Release, patch_python
from helpers.json_contract import closed
from helpers.json_page import DOCUMENT, DRY_RUN, EXAMPLES, FAILURE, document, example
from helpers.silent_server import silent_after
from helpers.update_module import Recorder
from jsonschema import Draft202012Validator

from mender_oneshot import json_members, json_schema
from mender_oneshot.devserver import DevServer

CLIENT = [path for path in (REPO / "mender_oneshot").rglob("*.py") if "devserver" not in path.parts]


def calls_of(name: str) -> Iterator[ast.Call]:
    for path in CLIENT:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
                yield node


def test_every_outcome_of_the_code_is_described_and_no_other() -> None:
    used = {call.args[0].value for call in calls_of("Outcome") if isinstance(call.args[0], ast.Constant)}
    described = {word for step in json_schema.STEPS.values() for word in step}
    described |= {word for command in json_schema.COMMANDS.values() for word in command}
    described |= set(json_schema.ANOTHER_DEVICE)
    assert used == described == set(json_members.OUTCOMES)


def test_every_error_of_the_code_has_a_reason_of_the_list() -> None:
    words = {
        statement.value.value
        for path in CLIENT
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        for statement in node.body
        if isinstance(statement, ast.Assign)
        and isinstance(statement.value, ast.Constant)
        and [target.id for target in statement.targets if isinstance(target, ast.Name)] == ["word"]
    }
    assert words | {"interrupted"} == set(json_members.REASONS)


def test_the_page_is_that_of_the_schema() -> None:
    again = "run PYTHONPATH=tests .venv/bin/python -m helpers.json_page"
    assert DOCUMENT.read_text() == document(), again


@pytest.mark.parametrize("command", sorted(EXAMPLES))
def test_the_example_of_the_page_is_valid(command: str) -> None:
    schema = json_schema.succeeding(command)
    Draft202012Validator(closed(schema)).validate(example(EXAMPLES[command]))
    Draft202012Validator(json_schema.schema(command)).validate(example(FAILURE, 77))
    if command == "run":
        Draft202012Validator(closed(schema)).validate(example(DRY_RUN))


def test_every_command_has_an_example_and_its_schema_can_be_printed(device: Device) -> None:
    assert set(EXAMPLES) == set(json_schema.NAMES) - {"announce"}
    words = [device.python, "-m", "mender_oneshot.json_schema", "status"]
    done = subprocess.run(words, env=device.env(), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == json_schema.schema("status")


def test_each_command_of_an_update_prints_what_is_described(
    device: Device, server: DevServer, release: Release, tmp_path: Path
) -> None:
    refused = device.run("auth", "--json").json
    assert (refused["step"], refused["reason"], refused["exit_code"]) == ("auth", "not_accepted", 77)
    server.accept()
    device.sub_updater()
    deployment = release()
    path = str(make_artifact(tmp_path / "x.mender", name="release-3", compression="none"))
    for words, outcome in (
        ("bootstrap", "kept"),
        ("auth", "authorized"),
        ("send-inventory", "sent"),
        ("check-update", "update"),
        ("download", "downloaded"),
        ("download", "downloaded"),
        ("install", "handed-off"),
        ("report --failure", "delivered"),
        ("report --failure", "already"),
        (f"verify {path}", "accepted"),
        (f"extract {path} {tmp_path}/new", "extracted"),
    ):
        answer = device.ok(*words.split(), "--json").json
        assert (answer["step"], answer["outcome"]) == (words.split()[0], outcome)
    for name in ("status", "history", "log", "show-artifact", "show-provides", "doctor"):
        assert device.run(name, "--json").json["schema"] == 1
    assert device.ok("history", "--json").json["deployments"][0]["deployment"] == deployment


def test_each_command_of_an_installation_by_hand_prints_what_is_described(
    device: Device, tmp_path: Path
) -> None:
    module = Recorder(device)
    path = make_artifact(tmp_path / "a.mender", payload_type="fake", scripts=module.scripts())
    for words, outcome in (
        (f"install {path}", "waiting"),
        ("rollback", "rolled-back"),
        (f"install --stop-before ArtifactInstall_Enter {path}", "stopped"),
        ("resume", "waiting"),
        ("commit", "installed"),
    ):
        assert device.ok(*words.split(), "--json").json["outcome"] == outcome
        assert device.ok("status", "--json").json["schema"] == 1


def test_a_run_lists_its_steps_before_the_failure(accepted: Device, server: DevServer) -> None:
    server.faults.add(match="PUT */attributes", count=None, status=503)
    answer = accepted.run("--json", "run", "--all").json
    assert [step["step"] for step in answer["steps"]] == ["check-update"]
    assert (answer["step"], answer["reason"]) == ("send-inventory", "server_busy")


def test_the_step_of_a_failure_is_the_one_that_failed(device: Device) -> None:
    assert device.run("send-inventory", "--json").json["step"] == "auth"
    assert device.run("run", "--json", "--force").json["step"] == "auth"


FAILURES: dict[str, tuple[str, str]] = {
    "no such command": ("usage", "frobnicate"),
    "no command": ("usage", ""),
    "a wrong option": ("usage", "run --only nothing"),
    "a wrong option before": ("usage", "-l loud run"),
    "nothing to download": ("nothing_in_progress", "download"),
    "nothing to install": ("nothing_in_progress", "install"),
    "nothing to report": ("nothing_in_progress", "report --success"),
    "nothing to commit": ("nothing_in_progress", "commit"),
    "nothing to roll back": ("nothing_in_progress", "rollback"),
    "nothing to resume": ("nothing_in_progress", "resume"),
    "no log": ("nothing_in_progress", "log"),
    "no such file": ("disk", "verify /nothing"),
    "no artifact": ("artifact_rejected", "extract /etc/passwd /nothing"),
    "no terminal": ("config", "terminal"),
    "no setup": ("usage", "setup --device-type x --hosted-mender --hosted-mender-eu"),
    "by hand": ("artifact_rejected", "install /etc/passwd"),
}


@pytest.mark.parametrize("position", ["before", "after"])
@pytest.mark.parametrize("trouble", FAILURES)
def test_each_failure_has_its_word(accepted: Device, trouble: str, position: str) -> None:
    reason, words = FAILURES[trouble]
    line = ["--json", *words.split()] if position == "before" else [*words.split(), "--json"]
    answer = accepted.run(*line).json
    assert answer["reason"] == reason
    assert answer["error"]


TROUBLES: dict[str, Callable[[Device, DevServer], object]] = {
    "network": lambda device, server: server.stop(),
    "tls": lambda device, server: device.configure(ServerCertificate=""),
    "config": lambda device, server: device.configure(ServerURL=""),
    "server_busy": lambda device, server: server.faults.add(match="GET */next", status=503),
    "protocol": lambda device, server: server.faults.add(match="GET */next", status=200, body="{}"),
    "bug": lambda device, server: patch_python(
        device, "import os\ndef no(*w, **o): raise RuntimeError\nos.makedirs = no"
    ),
    "out_of_memory": lambda device, server: patch_python(
        device, "import os\ndef no(*w, **o): raise MemoryError\nos.makedirs = no"
    ),
}


@pytest.mark.parametrize("reason", TROUBLES)
def test_each_trouble_of_a_check_has_its_word(accepted: Device, server: DevServer, reason: str) -> None:
    TROUBLES[reason](accepted, server)
    process = accepted.start("check-update", "--json")
    out, _ = process.communicate(timeout=60)
    answer = json.loads(out)
    assert (answer["reason"], answer["exit_code"]) == (reason, process.returncode)


def test_a_pause_of_the_server_a_lock_and_a_time_limit_have_their_words(
    accepted: Device, server: DevServer
) -> None:
    server.faults.add(match="GET */next", status=429, retry_after=600)
    accepted.run("check-update", "--json")
    assert accepted.run("check-update", "--json").json["reason"] == "server_pause"
    with open(accepted.data / "mender-oneshot.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert accepted.run("run", "--json").json["reason"] == "lock_held"
        answer = accepted.run("auth", "--json", "--max-runtime", "2").json
    assert (answer["reason"], answer["exit_code"]) == ("deadline", 75)


def test_ctrl_c_leaves_an_object(device: Device) -> None:
    with silent_after(b"") as port:
        device.configure(ServerURL=f"https://127.0.0.1:{port}")
        process = device.start("auth", "--json")
        while not os.path.exists(device.data / "mender-agent.pem"):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert (json.loads(out)["reason"], process.returncode) == ("interrupted", 130)


def test_warnings_are_in_the_object_whatever_the_log_level(accepted: Device) -> None:
    accepted.configure(ServerCertificat="/x")
    answer = accepted.ok("-l", "critical", "status", "--json").json
    assert len(answer["warnings"]) == 1
    assert "ServerCertificat" in answer["warnings"][0]


def test_an_error_is_not_a_warning_as_well(device: Device) -> None:
    answer = device.run("auth", "--json").json
    assert answer["error"]
    assert answer["warnings"] == []
