"""The commands of the development server, as processes, against running servers and with a device."""

import contextlib
import json
import re
import signal
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.artifacts import make_artifact
from helpers.device import REPO, Device, Run, checked
from helpers.waiting import until

from mender_oneshot.devserver.addresses import addresses

ADDRESS = "198.51.100.7"  # of no machine


class Tool:
    """A directory, and the commands that are run for the server in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def start(self, *words: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "mender_oneshot.devserver", *words],
            cwd="/",
            env={"PYTHONPATH": str(REPO), "MENDER_DEVSERVER_DIRECTORY": str(self.directory)},
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __call__(self, *words: str) -> Run:
        with self.start(*words) as program:
            out, err = program.communicate(timeout=60)
        return checked(Run(program.returncode, out, err))

    def ok(self, *words: str) -> str:
        done = self(*words)
        assert (done.code, done.err) == (0, ""), done
        return done.out

    @contextlib.contextmanager
    def serving(self, *options: str, command: tuple[str, ...] = ("serve",)) -> Iterator[list[str]]:
        """Run the server; yield the lines that it printed at its start."""
        with self.start(*command, "--port", "0", "--quiet", *options) as program:
            assert program.stdout
            lines: list[str] = []
            while not lines or "ServerURL" not in lines[-1]:
                lines.append(program.stdout.readline())
                assert lines[-1], program.communicate()
            if lines[-1].endswith(",\n"):
                lines.append(program.stdout.readline())
            try:
                yield lines
            finally:
                program.send_signal(signal.SIGTERM)
                program.communicate(timeout=60)

    def settings(self, lines: list[str]) -> dict[str, str]:
        """The settings for mender.conf."""
        found: dict[str, str] = json.loads("{" + "".join(lines[-2:]) + "}")
        return found


@pytest.fixture
def tool(tmp_path: Path) -> Tool:
    return Tool(tmp_path / "devserver")


@pytest.fixture
def board(tmp_path: Path) -> Device:
    """A device that is not configured yet."""
    return Device(tmp_path / "board", sys.executable)


@pytest.fixture
def release(tmp_path: Path) -> str:
    """The path of an artifact."""
    return str(make_artifact(tmp_path / "release-2.mender"))


def test_a_device_is_accepted_and_updated_with_the_commands_alone(
    tool: Tool, board: Device, release: str
) -> None:
    with tool.serving() as lines:
        board.configure(**tool.settings(lines))
        board.sub_updater("$ONESHOT report --success\n")
        assert board.run("auth").code == 77
        assert tool.ok("accept").startswith("Accepted ")
        board.ok("auth")
        board.ok("send-inventory")
        heading, row = tool.ok("devices").splitlines()
        assert heading.split() == ["ID", "STATUS", "IDENTITY", "ARTIFACT", "NAME", "LAST", "CONTACT"]
        assert row.split()[1:4] == ["accepted", "mac=de:ad:be:ef:00:01", "release-1"]
        assert "inventory  artifact_name          release-1\n" in tool.ok("inventory", "de:ad:be:ef:00:01")

        assert tool.ok("upload", release).startswith("Uploaded release-2 for board: ")
        with tool.start("deploy", "release-2", "mac=de:ad:be:ef:00:01", "--wait") as waiting:
            assert waiting.stdout
            deployment = waiting.stdout.readline().split()[1]
            board.ok("run", "--all", "--force")
            out, _ = waiting.communicate(timeout=60)
        assert waiting.returncode == 0
        assert out.splitlines()[-1] == f"{row.split()[0]}: success"
        (listed,) = json.loads(tool.ok("deployments", "--json"))["deployments"]
        assert (listed["id"], listed["status"], listed["devices"]) == (deployment, "finished", {"success": 1})
        assert ": success\n" in tool.ok("log", deployment[:8])
        done = tool("abort", deployment)
        assert (done.code, "is finished already" in done.err) == (65, True)


def test_a_failed_update_is_read_in_the_log_and_deploy_wait_exits_with_70(
    tool: Tool, board: Device, release: str
) -> None:
    with tool.serving("--accept-all") as lines:
        board.configure(**tool.settings(lines))
        board.sub_updater("echo the lamp is broken; $ONESHOT report --failure\n")
        board.ok("auth")
        tool.ok("upload", release)
        with tool.start("deploy", "release-2", "--wait") as waiting:
            assert waiting.stdout
            deployment = waiting.stdout.readline().split()[1]
            board.ok("run", "--all", "--force")
            _, err = waiting.communicate(timeout=60)
        assert waiting.returncode == 70
        assert f"mender-oneshot-devserver log {deployment}" in err
        until(lambda: "lamp is broken" in tool.ok("log", deployment), "the log has arrived")
        (result,) = json.loads(tool.ok("log", deployment, "de:ad:be:ef:00:01", "--json"))["devices"]
        assert result["status"] == "failure"
        assert any("lamp is broken" in line for line in result["log"])


def test_an_aborted_deployment_is_not_offered(tool: Tool, board: Device, release: str) -> None:
    with tool.serving("--accept-all") as lines:
        board.configure(**tool.settings(lines))
        board.ok("auth")
        tool.ok("upload", release)
        deployment = json.loads(tool.ok("deploy", "release-2", "--json"))["deployment"]["id"]
        assert tool.ok("log", deployment) == "No device has asked for this deployment yet.\n"
        assert tool("log", deployment, "de:ad:be:ef:00:01").code == 66
        assert json.loads(tool.ok("abort", deployment, "--json")) == {"schema": 1, "aborted": deployment}
        board.ok("check-update", "--exit-code")
        assert json.loads(tool.ok("devices", "--json"))["devices"][0]["status"] == "accepted"


@pytest.mark.parametrize(
    ("code", "sentence", "words"),
    [
        (66, "No device is pending", ["accept"]),
        (66, "No device is pending", ["accept", "--all"]),
        (66, "No device matches nothing", ["accept", "nothing"]),
        (66, "No device matches nothing", ["inventory", "nothing"]),
        (66, "No device matches nothing", ["deploy", "release-2", "nothing"]),
        (66, "No device is accepted", ["deploy", "release-2"]),
        (66, "No deployment matches nothing", ["abort", "nothing"]),
        (66, "No deployment matches nothing", ["log", "nothing"]),
        (66, "Cannot read /nothing: No such file", ["upload", "/nothing"]),
        (66, "Cannot read /: Is a directory", ["upload", "/"]),
        (65, "The server rejects /etc/passwd: ", ["upload", "/etc/passwd"]),
    ],
)
def test_a_wrong_name_is_one_sentence(tool: Tool, code: int, sentence: str, words: list[str]) -> None:
    with tool.serving():
        done = tool(*words)
    assert (done.code, done.out, done.err.count("\n")) == (code, "", 1), done
    assert done.err.startswith(sentence)


def test_an_artifact_that_is_not_there_is_answered_with_the_names_of_those_that_are(
    tool: Tool, board: Device, release: str
) -> None:
    with tool.serving("--accept-all") as lines:
        board.configure(**tool.settings(lines))
        board.ok("auth")
        tool.ok("upload", release)
        done = tool("deploy", "release-3")
        assert (done.code, "there are: release-2" in done.err) == (66, True)
        done = tool("upload", release)
        assert (done.code, "is there already" in done.err) == (65, True)


def test_of_two_pending_devices_one_is_named_or_all_are_accepted(
    tool: Tool, tmp_path: Path, board: Device
) -> None:
    other = Device(tmp_path / "other", sys.executable)
    other.script("identity/mender-device-identity", "#!/bin/sh\necho mac=02\n")
    with tool.serving() as lines:
        for device in (board, other):
            device.configure(**tool.settings(lines))
            assert device.run("auth").code == 77
        done = tool("accept")
        assert (done.code, "2 devices are pending" in done.err) == (64, True)
        assert "mac=02" in tool.ok("accept", "02")
        other.ok("auth")
        assert tool("accept", "de:ad:be:ef:00:01", "--all").code == 64
        assert len(json.loads(tool.ok("accept", "--all", "--json"))["accepted"]) == 1
        board.ok("auth")


def test_two_servers_are_told_apart_by_their_directories(tool: Tool, tmp_path: Path, release: str) -> None:
    other = Tool(tmp_path / "other")
    with tool.serving(), other.serving("--http"):
        tool.ok("upload", release)
        assert tool("upload", release).code == 65
        assert other.ok("upload", release).startswith("Uploaded")
        assert tool("upload", release, "--directory", str(other.directory)).code == 65
        second = tool("serve", "--port", "0")
        assert (second.code, "Another server runs in" in second.err) == (73, True)


COMMANDS = [["devices"], ["accept"], ["upload", "x"], ["deploy", "x"], ["deployments"], ["log", "x"]]


@pytest.mark.parametrize("words", [*COMMANDS, ["abort", "x"], ["inventory", "x"]])
def test_a_server_that_does_not_run_is_one_sentence(tool: Tool, words: list[str]) -> None:
    done = tool(*words)
    assert (done.code, done.out, done.err.count("\n")) == (69, "", 1)
    assert done.err.startswith(f"No server runs in {tool.directory};")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_an_ended_server_leaves_behind_is_not_taken_for_a_server(
    tool: Tool, number: signal.Signals
) -> None:
    with tool.start("serve", "--port", "0") as program:
        assert program.stdout
        program.stdout.readline()
        tool.ok("devices")
        program.send_signal(number)
        program.communicate(timeout=60)
    done = tool("devices")
    assert (done.code, "No server runs in" in done.err) == (69, True)
    with tool.serving():
        tool.ok("devices")


def test_the_commands_use_the_login_of_the_server_which_only_its_user_can_read(tool: Tool) -> None:
    with tool.serving("--user", "me:secret"):
        assert tool.ok("devices") == "None yet.\n"
        file = tool.directory / "server.json"
        assert file.stat().st_mode & 0o777 == 0o600
        file.write_text(file.read_text().replace("secret", "wrong"))
        done = tool("devices")
        assert (done.code, done.err.count("\n")) == (77, 1)


def test_without_a_command_the_options_are_those_of_serve(tool: Tool) -> None:
    with tool.serving(command=()) as lines:
        assert lines[0].startswith("Serving https://127.0.0.1:")
        tool.ok("devices")


@pytest.mark.parametrize("words", [["nonsense"], ["deploy"], ["log"], ["accept", "--nonsense"]])
def test_a_usage_error_exits_with_64(tool: Tool, words: list[str]) -> None:
    assert tool(*words).code == 64


def test_a_board_gets_the_ca_and_the_settings_from_the_lines_of_serve(
    tool: Tool, board: Device, tmp_path: Path
) -> None:
    with tool.serving("--board", "--name", "localhost", "--name", ADDRESS) as lines:
        text = "".join(lines)
        assert f"https://{ADDRESS}:" in text
        shell = text[text.index("mkdir -p") : text.index("In mender.conf")]
        assert "/etc/mender" in shell
        subprocess.run(
            ["sh", "-eu"], input=shell.replace("/etc/mender", str(board.conf)), text=True, check=True
        )
        settings = {
            name: value.replace("/etc/mender", str(board.conf))
            for name, value in tool.settings(lines).items()
        }
        assert settings["ServerURL"].startswith("https://localhost:")
        board.configure(**settings)
        assert board.run("auth").code == 77, "TLS works by a name that only --name has put there first"
        board.configure(ServerURL=settings["ServerURL"].replace("localhost", "127.0.0.2"))
        assert "127.0.0.2" in board.run("auth").err
        assert len(json.loads(tool.ok("devices", "--json"))["devices"]) == 1


@pytest.mark.parametrize("options", [["--board"], ["--host", "0.0.0.0"], ["--host", "::"]])
def test_a_server_on_the_network_prints_the_only_login_and_the_commands_have_it(
    tool: Tool, options: list[str]
) -> None:
    with tool.serving(*options, "--name", "localhost") as lines:
        login = re.search(r"^Log in as (\S+) with the password (\S+)\.$", "".join(lines), re.MULTILINE)
        assert login
        assert f"The web page is {tool.settings(lines)['ServerURL']}/.\n" in lines
        assert tool.ok("devices") == "None yet.\n"
        file = tool.directory / "server.json"
        endpoint = json.loads(file.read_text())
        assert (endpoint["user"], endpoint["password"]) == login.groups()
        file.write_text(json.dumps(endpoint | {"password": "any"}))
        assert tool("devices").code == 77


@pytest.mark.parametrize("options", [[], ["--board", "--user", "me:secret"], ["--host", "localhost"]])
def test_a_server_on_loopback_or_with_a_login_makes_none(tool: Tool, options: list[str]) -> None:
    with tool.serving(*options) as lines:
        assert "Log in as" not in "".join(lines)
        assert "The web page is https://" in "".join(lines)


def test_faults_are_open_to_this_machine_at_the_address_of_the_board(tool: Tool) -> None:
    found = addresses()
    if not found:
        pytest.skip("this machine has no address besides loopback")
    with tool.serving("--board") as lines:
        url = tool.settings(lines)["ServerURL"]
        assert url.startswith(f"https://{found[0]}:")
        trusted = ssl.create_default_context(cafile=str(tool.directory / "ca.pem"))
        with urllib.request.urlopen(f"{url}/devserver/requests", context=trusted) as reply:
            assert json.load(reply) == []
