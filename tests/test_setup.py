"""`setup` writes the configuration of a new device, from flags or from the answers to its questions."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.device import (
    IDENTITY,
    REPO,
    SYSTEM_PYTHON,
    Device,
    need_libraries,
    newest_only,
    one_sentence,
    patch_python,
)
from helpers.permissions import mode
from helpers.questions import converse
from helpers.real_daemon import need

from mender_oneshot import schedule
from mender_oneshot.devserver import DevServer

TOKEN = "eyJ0ZW5hbnQiOiJhY21lIn0.c2VjcmV0"
SCRIPTS = REPO / "mender_oneshot" / "device_scripts"


@pytest.fixture
def new(device: Device) -> Device:
    """A device with nothing but the program and an identity."""
    for path in (device.conf, device.data):
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    (device.scripts / "inventory").rmdir()
    # The timers and crontabs of this machine are not those of the device.
    patch_python(
        device, f"from mender_oneshot import schedule\nschedule.find.__defaults__ = ({str(device.root)!r},)\n"
    )
    return device


def patch(device: Device, code: str) -> None:
    """Add to the patch of the device's Python."""
    with (device.root / "patch" / "sitecustomize.py").open("a") as file:
        file.write(code)


def flags(server: DevServer) -> list[str]:
    return ["--server-url", server.url, "--server-cert", str(server.ca), "--device-type", "board"]


HOSTED = ["--hosted-mender", "--device-type", "board", "--offline"]


def members(device: Device) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((device.conf / "mender.conf").read_text())
    return found


def files(device: Device) -> dict[str, tuple[bytes, int]]:
    """Everything on the device, with its modes."""
    return {
        str(path.relative_to(device.root)): (path.read_bytes(), mode(path))
        for path in device.root.rglob("*")
        if path.is_file() and "patch" not in path.parts
    }


# With flags.


def test_one_command_brings_a_new_device_to_the_pending_ones(new: Device, server: DevServer) -> None:
    done = new.ok("setup", *flags(server))
    assert members(new) == {"ServerURL": server.url, "ServerCertificate": str(server.ca)}
    assert (new.data / "device_type").read_text() == "device_type=board\n"
    assert "accept it under Devices > Pending" in done.out
    assert "FAILED" not in done.out
    server.accept()
    new.ok("run", "--all", "--force")
    attributes = server.device().attributes
    assert attributes["device_type"] == "board"
    assert attributes["artifact_name"] == "initial"
    assert {"os", "kernel", "mem_total_kB"} <= set(attributes)


def test_a_device_that_the_server_knows_is_authorized(new: Device, server: DevServer) -> None:
    new.ok("setup", *flags(server))
    server.accept()
    done = new.ok("setup", *flags(server), "--json")
    assert (done.json["outcome"], done.json["files"]) == ("authorized", [])
    assert all(check["ok"] for check in done.json["checks"])


def test_the_second_run_changes_nothing(new: Device) -> None:
    new.ok("setup", *HOSTED, "--tenant-token", TOKEN)
    before = files(new)
    new.ok("setup", *HOSTED)
    new.ok("setup", "--offline")
    assert files(new) == before


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_a_configuration_with_a_token_is_private(new: Device, umask: int) -> None:
    new.run("setup", *HOSTED, "--tenant-token", TOKEN, umask=umask)
    assert members(new)["TenantToken"] == TOKEN
    assert mode(new.conf / "mender.conf") == 0o600
    assert mode(new.data / "device_type") == 0o644
    assert (mode(new.conf), mode(new.data)) == (0o755, 0o700)
    assert {mode(path) for path in (new.scripts / "inventory").iterdir()} == {0o755}


def test_the_token_comes_from_a_file_or_from_stdin(new: Device, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text(f"{TOKEN}\n")
    new.ok("setup", *HOSTED, "--tenant-token-file", str(secret))
    assert members(new)["TenantToken"] == TOKEN
    done = subprocess.run(
        [new.python, "-m", "mender_oneshot", "setup", *HOSTED, "--tenant-token-file", "-", "--force"],
        env=new.env(), input="another\n", text=True, capture_output=True, check=True,
    )  # fmt: skip
    assert members(new)["TenantToken"] == "another"
    assert "another\n" not in done.stdout + done.stderr


def test_the_intervals_are_those_of_the_flags(new: Device) -> None:
    new.ok("setup", *HOSTED, "--tenant-token", TOKEN, "--demo-polling", "--update-poll", "77")
    assert members(new) == {
        "ServerURL": "https://hosted.mender.io",
        "TenantToken": TOKEN,
        "UpdatePollIntervalSeconds": 77,
        "InventoryPollIntervalSeconds": 5,
        "RetryPollIntervalSeconds": 30,
    }


def test_the_european_server(new: Device) -> None:
    new.ok("setup", "--hosted-mender-eu", "--device-type", "b", "--offline", "--tenant-token", TOKEN)
    assert members(new)["ServerURL"] == "https://eu.hosted.mender.io"


def test_existing_scripts_are_kept_and_no_scripts_means_none(new: Device) -> None:
    own = new.scripts / "identity" / "mender-device-identity"
    new.ok("setup", *HOSTED, "--tenant-token", TOKEN, "--no-scripts")
    assert not (new.scripts / "inventory").exists()
    own.unlink()
    new.ok("setup", *HOSTED)
    assert own.read_bytes() == (SCRIPTS / "mender-device-identity").read_bytes()
    own.write_text(IDENTITY)
    new.ok("setup", *HOSTED, "--force")
    assert own.read_text() == IDENTITY


@pytest.mark.parametrize("name", ["etc", "it's $HOME; a place"])
def test_the_commands_it_prints_undo_it(new: Device, name: str) -> None:
    new.conf = new.root / name
    new.conf.mkdir()
    (new.conf / "mender.conf").write_text('{"ServerURL": "https://old.example.com"}')
    before = files(new)
    done = new.ok("setup", *HOSTED, "--tenant-token", TOKEN, "--force", "--json")
    assert files(new) != before
    for command in done.json["undo"]:
        subprocess.run(["sh", "-c", command], check=True)
    assert files(new) == before


def test_quiet_prints_the_result_only(new: Device) -> None:
    done = new.ok("setup", *HOSTED, "--tenant-token", TOKEN, "--quiet")
    assert done.out == "The device is configured; the server was not contacted.\n"


# What is there already.


def test_nothing_is_replaced_without_force(new: Device) -> None:
    new.ok("setup", *HOSTED, "--tenant-token", TOKEN)
    before = files(new)
    done = new.run("setup", *HOSTED[:-1], "--device-type", "other", "--offline", "--update-poll", "9")
    one_sentence(done, 73, "mender.conf", "device_type", "--force")
    assert files(new) == before


def test_force_keeps_the_other_settings_and_a_copy(new: Device) -> None:
    new.conf.mkdir()
    old = {"serverurl": "https://old.example.com", "TenantToken": "old", "RootfsPartA": "/dev/mmcblk0p2"}
    (new.conf / "mender.conf").write_text(json.dumps(old))
    new.ok("setup", *HOSTED, "--tenant-token", TOKEN, "--force")
    assert members(new) == {
        "ServerURL": "https://hosted.mender.io",
        "TenantToken": TOKEN,
        "RootfsPartA": "/dev/mmcblk0p2",
    }
    copy = new.conf / "mender.conf.old"
    assert (json.loads(copy.read_text()), mode(copy)) == (old, 0o600)
    new.ok("setup", *HOSTED, "--update-poll", "9", "--force")
    assert json.loads(copy.read_text()) == old
    assert (new.conf / "mender.conf.old1").exists()


def test_another_server_does_not_get_the_token_of_the_old_one(new: Device) -> None:
    new.ok("setup", *HOSTED, "--tenant-token", TOKEN)
    new.ok("setup", "--server-url", "https://mender.example.com", "--offline", "--force")
    assert members(new) == {"ServerURL": "https://mender.example.com"}


def test_a_link_to_the_configuration_stays_a_link(new: Device) -> None:
    new.conf.mkdir()
    (new.root / "real.conf").write_text("{}")
    (new.conf / "mender.conf").symlink_to(new.root / "real.conf")
    new.ok("setup", *HOSTED, "--tenant-token", TOKEN, "--force")
    assert (new.conf / "mender.conf").is_symlink()
    assert members(new)["TenantToken"] == TOKEN
    assert mode(new.root / "real.conf") == 0o600


# Values that cannot be used.

WRONG: dict[str, tuple[list[str], int]] = {
    "nothing": ([], 64),
    "no server": (["--device-type", "b"], 64),
    "no device type": (["--hosted-mender", "--tenant-token", TOKEN], 64),
    "no token": (["--hosted-mender", "--device-type", "b"], 64),
    "two servers": ([*HOSTED, "--hosted-mender-eu", "--tenant-token", TOKEN], 64),
    "two tokens": ([*HOSTED, "--tenant-token", TOKEN, "--tenant-token-file", "/dev/null"], 64),
    "no URL": (["--server-url", "mender.example.com", "--device-type", "b"], 64),
    "http": (["--server-url", "http://mender.example.com", "--device-type", "b"], 64),
    "a login": (["--server-url", f"https://me:{TOKEN}@mender.example.com", "--device-type", "b"], 64),
    "two lines": (["--server-url", "https://mender.example.com", "--device-type", "a\nb=c"], 64),
    "blanks": (["--server-url", "https://mender.example.com", "--device-type", "a b"], 64),
    "a long name": (["--server-url", "https://mender.example.com", "--device-type", "a" * 256], 64),
    "an odd token": ([*HOSTED, "--tenant-token", f"{TOKEN}\n{TOKEN}"], 64),
    "an empty token": ([*HOSTED, "--tenant-token-file", "-"], 64),
    "no token file": ([*HOSTED, "--tenant-token-file", "/nonexistent"], 64),
    "no certificate": (["--server-url", "https://a.b", "--server-cert", "/none", "--device-type", "b"], 78),
    "a wrong certificate": (
        ["--server-url", "https://a.b", "--server-cert", "/etc/passwd", "--device-type", "b"], 78,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_value_that_cannot_be_used_is_one_sentence_and_nothing_is_written(new: Device, case: str) -> None:
    words, code = WRONG[case]
    before = files(new)
    done = new.run("setup", *words)
    one_sentence(done, code)
    assert TOKEN not in done.out + done.err
    assert files(new) == before
    assert not new.conf.exists()


def test_the_error_is_in_the_json_as_well(new: Device) -> None:
    done = new.run("setup", "--json", "--device-type", "b")
    assert (done.code, done.json["exit_code"]) == (64, 64)
    assert "--server-url" in done.json["error"]


# Disks.


def file_for_directory(device: Device) -> None:
    device.conf.write_text("")


def directory_for_file(device: Device) -> None:
    (device.data / "device_type").mkdir(parents=True)


def dangling(device: Device) -> None:
    device.conf.symlink_to("/nonexistent")


def read_only(device: Device) -> None:
    device.data.mkdir()
    patch(
        device,
        "import os\n"
        "before = os.statvfs\n"
        "def statvfs(path):\n"
        "    found = list(before(path))\n"
        f"    found[8] |= os.ST_RDONLY if str(path).startswith({str(device.data)!r}) else 0\n"
        "    return os.statvfs_result(found)\n"
        "os.statvfs = statvfs\n",
    )


def full(device: Device) -> None:
    device.data.mkdir()
    patch(
        device,
        "import os\n"
        "before = os.statvfs\n"
        "def statvfs(path):\n"
        "    found = list(before(path))\n"
        "    found[3] = found[4] = 1\n"
        "    return os.statvfs_result(found)\n"
        "os.statvfs = statvfs\n",
    )


BROKEN: dict[str, tuple[Callable[[Device], None], int]] = {
    "a file for a directory": (file_for_directory, 74),
    "a directory for a file": (directory_for_file, 74),
    "a dangling link": (dangling, 78),
    "read-only": (read_only, 73),
    "full": (full, 73),
}


@newest_only
@pytest.mark.parametrize("case", BROKEN)
def test_a_disk_that_cannot_take_all_files_gets_none(new: Device, case: str) -> None:
    breaks, code = BROKEN[case]
    breaks(new)
    before = files(new)
    done = new.run("setup", *HOSTED, "--tenant-token", TOKEN)
    one_sentence(done, code)
    assert files(new) == before


@newest_only
def test_a_failure_while_writing_removes_what_was_written(new: Device) -> None:
    """The disk looked good, and the last file does not fit."""
    new.conf.mkdir()
    (new.conf / "mender.conf").write_text("{}")
    before = files(new)
    patch(
        new,
        "import errno, os\n"
        "before = os.replace\n"
        "def replace(old, new, **more):\n"
        "    if old.endswith('mender.conf.new'):\n"
        "        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), new)\n"
        "    before(old, new, **more)\n"
        "os.replace = replace\n",
    )
    done = new.run("setup", *HOSTED, "--tenant-token", TOKEN, "--force")
    one_sentence(done, 73, "mender.conf", "No space left on device")
    assert files(new) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@newest_only
def test_another_user_is_told_to_become_root(new: Device) -> None:
    need_libraries(SYSTEM_PYTHON)
    new.python = SYSTEM_PYTHON
    if subprocess.run(["test", "-r", REPO / "pyproject.toml"], user=12345, check=False).returncode:
        pytest.skip("only root can read this checkout")
    new.environment |= {
        "MENDER_CONF_DIR": "/etc/mender-of-root",
        "MENDER_DATASTORE_DIR": "/var/lib/mender-of-root",
        "PYTHONPATH": str(REPO),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = new.run("setup", *HOSTED, "--tenant-token", TOKEN, user=12345, group=12345, extra_groups=[])
    one_sentence(done, 74, "run this as root")


# Questions.

SCRIPTS_QUESTION = ("Install the scripts", "")


def test_the_answers_set_the_device_up(new: Device) -> None:
    talk = converse(
        new,
        ["setup", "--offline"],
        [
            ("Number [1]: ", "7"),
            ("Choose one of the numbers", "2"),
            ("Tenant token: ", TOKEN),
            ("Device type [", "a board"),
            ("Device type [", "board"),
            ("release [initial]: ", ""),
            ("try it out? [y/N]", "y"),
            SCRIPTS_QUESTION,
            ("Write these files? [Y/n]", "y"),
        ],
    )
    assert talk.code == 0, talk
    assert TOKEN not in talk.screen
    assert members(new) == {
        "ServerURL": "https://eu.hosted.mender.io",
        "TenantToken": TOKEN,
        "UpdatePollIntervalSeconds": 5,
        "InventoryPollIntervalSeconds": 5,
        "RetryPollIntervalSeconds": 30,
    }
    assert (new.data / "device_type").read_text() == "device_type=board\n"
    assert len(list((new.scripts / "inventory").iterdir())) == 4


def test_the_development_server_is_asked_for_no_token(new: Device, server: DevServer) -> None:
    talk = converse(
        new,
        ["setup", "--demo-polling", "--device-type", "board", "--artifact-name", "r1", "--no-scripts"],
        [
            ("Number [1]: ", "4"),
            ("URL of the server [https://127.0.0.1:8443]: ", server.url),
            ("CA certificate", str(server.ca)),
            ("Tenant token (empty for none): ", ""),
            ("Write these files? [Y/n]", ""),
        ],
    )
    assert talk.code == 0, talk
    assert "accept it under Devices > Pending" in talk.screen
    assert "To undo this:" in talk.screen


@pytest.mark.parametrize(("key", "code"), [("\x03", 130), ("\x04", 64)], ids=["Ctrl-C", "Ctrl-D"])
@pytest.mark.parametrize("question", ["Number [1]: ", "Tenant token: "])
def test_a_person_who_stops_finds_nothing_written(new: Device, key: str, code: int, question: str) -> None:
    answers = [("Number [1]: ", "1"), ("Tenant token: ", "")]
    before = files(new)
    until = [name for name, _ in answers].index(question)
    talk = converse(new, ["setup"], [*answers[:until], (question, key)])
    assert talk.code == code, talk
    assert "Traceback" not in talk.screen
    assert files(new) == before


@pytest.mark.parametrize("answer", ["", "n"])
def test_files_are_replaced_only_after_a_yes(new: Device, answer: str) -> None:
    new.ok("setup", *HOSTED, "--tenant-token", TOKEN)
    before = files(new)
    words = ["setup", "--offline", "--device-type", "other"]
    asked = [("Number [5]: ", ""), ("try it out? [y/N]", ""), ("Write these files? [y/N]", answer)]
    talk = converse(new, words, asked)
    assert talk.code == 64, talk
    assert files(new) == before
    talk = converse(new, words, [*asked[:2], ("Write these files? [y/N]", "y")])
    assert talk.code == 0, talk
    assert (new.data / "device_type").read_text() == "device_type=other\n"
    assert members(new)["TenantToken"] == TOKEN


# Timers and cron.


def root_with(tmp_path: Path, *names: str) -> str:
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.write_text("")
    return str(tmp_path)


def test_a_device_without_systemd_and_cron_has_no_schedule(tmp_path: Path) -> None:
    assert schedule.find(root_with(tmp_path)) is None
    assert schedule.find(root_with(tmp_path, "run/systemd/system/")) is None


def test_systemd_comes_before_cron(tmp_path: Path) -> None:
    unit = f"usr/local/lib/systemd/system/{schedule.TIMERS[0]}"
    found = schedule.find(root_with(tmp_path, "run/systemd/system/", unit, "etc/cron.d/mender-oneshot"))
    assert found is not None
    assert (found.kind, found.undo.split()[:3]) == ("timers", ["systemctl", "disable", "--now"])


def test_the_line_of_the_cron_file_is_enabled_once_and_disabled_by_the_undo(tmp_path: Path) -> None:
    root = root_with(tmp_path, "etc/cron.d/mender-oneshot")
    path = tmp_path / "etc/cron.d/mender-oneshot"
    shipped = (REPO / "cron/mender-oneshot").read_text()
    path.write_text(shipped)
    found = schedule.find(root)
    assert found is not None
    assert not found.enabled
    schedule.enable(found)
    assert path.read_text() == shipped.replace("\n#* * * * *", "\n* * * * *")
    assert mode(path) == 0o644
    enabled = schedule.find(root)
    assert enabled is not None
    assert enabled.enabled
    subprocess.run(["sh", "-c", found.undo], check=True)
    assert path.read_text() == shipped


@pytest.mark.parametrize("before", ["", "0 0 * * * backup\n", "0 0 * * * backup"])
def test_the_crontab_of_busybox_gets_one_line(tmp_path: Path, before: str) -> None:
    root = root_with(tmp_path, "var/spool/cron/crontabs/")
    path = tmp_path / "var/spool/cron/crontabs/root"
    if before:
        path.write_text(before)
    found = schedule.find(root)
    assert found is not None
    assert (found.kind, found.enabled) == ("crontab", False)
    schedule.enable(found)
    lines = path.read_text().splitlines()
    assert lines[:-1] == before.splitlines()
    assert lines[-1] in (REPO / "cron/busybox-crontab").read_text().splitlines()
    assert mode(path) == 0o600
    assert path.with_name("cron.update").read_text() == "root\n"
    enabled = schedule.find(root)
    assert enabled is not None
    assert enabled.enabled


SYSTEMCTL = (
    '#!/bin/sh\necho "$*" >> {seen}\n[ "$1" != {fails} ] || {{ echo "Unit is masked." >&2; exit 1; }}\n'
)


def with_systemd(device: Device, *, fails: str = "nothing") -> Path:
    """Make the device one with systemd; return the file that gets the arguments of systemctl."""
    root_with(device.root, "run/systemd/system/", f"usr/local/lib/systemd/system/{schedule.TIMERS[0]}")
    seen = device.root / "systemctl"
    program = device.root / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(SYSTEMCTL.format(seen=seen, fails=fails))
    program.chmod(0o755)
    device.environment["PATH"] = f"{program.parent}:{os.environ['PATH']}"
    return seen


def test_schedule_enables_the_timers(new: Device, server: DevServer) -> None:
    seen = with_systemd(new)
    done = new.ok("setup", *flags(server), "--schedule", "--json")
    timers = " ".join(schedule.TIMERS)
    assert seen.read_text() == f"daemon-reload\nenable --now {timers}\n"
    assert done.json["schedule"] == "timers"
    assert done.json["undo"][0] == f"systemctl disable --now {timers}"


def test_without_the_option_nothing_is_enabled(new: Device, server: DevServer) -> None:
    seen = with_systemd(new)
    new.ok("setup", *flags(server))
    assert not seen.exists()


def test_timers_that_cannot_be_enabled_are_reported_with_the_command(new: Device, server: DevServer) -> None:
    with_systemd(new, fails="enable")
    done = new.run("setup", *flags(server), "--schedule")
    assert done.code == 78
    assert "(Unit is masked); run: systemctl enable --now" in done.out
    assert "accept it under Devices > Pending" in done.out


def test_schedule_without_timers_and_cron_is_an_error_before_anything_is_written(new: Device) -> None:
    before = files(new)
    one_sentence(new.run("setup", *HOSTED, "--tenant-token", TOKEN, "--schedule"), 78, "--schedule")
    assert files(new) == before


# The token.


def test_no_process_and_no_log_gets_the_token(new: Device, server: DevServer, tmp_path: Path) -> None:
    secret, log, seen = tmp_path / "token", tmp_path / "log", tmp_path / "seen"
    secret.write_text(TOKEN)
    new.script(
        "identity/mender-device-identity",
        f"#!/bin/sh\ncat /proc/$PPID/cmdline /proc/self/environ > {seen}\necho mac=de:ad:be:ef:00:01\n",
    )
    words = ["-l", "debug", "-L", str(log), "setup", *flags(server), "--tenant-token-file", str(secret)]
    done = new.ok(*words)
    assert members(new)["TenantToken"] == TOKEN
    assert "--tenant-token-file" in seen.read_text()
    assert TOKEN not in done.out + done.err + log.read_text() + seen.read_text()


# The scripts that it installs.


@pytest.mark.real
@pytest.mark.parametrize("script", sorted(SCRIPTS.iterdir()), ids=lambda path: path.name)
def test_the_scripts_are_plain_shell(script: Path) -> None:
    need("shellcheck", "busybox")
    subprocess.run(["shellcheck", script], check=True)
    subprocess.run(["busybox", "sh", "-n", script], check=True)
    assert os.access(script, os.X_OK)


@pytest.mark.parametrize("shell", [["sh"], ["busybox", "sh"]], ids=["sh", "busybox"])
@pytest.mark.parametrize("name", ["os", "network", "kernel", "memory"])
def test_an_inventory_script_prints_lines_only(name: str, shell: list[str]) -> None:
    if not shutil.which(shell[0]):
        pytest.skip(f"{shell[0]} is not installed")
    path = SCRIPTS / f"mender-inventory-{name}"
    done = subprocess.run(
        [*shell, path],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    assert done.stderr == ""
    assert all("=" in line for line in done.stdout.splitlines())


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ('PRETTY_NAME="Board OS 1.2 (x)"\n', "Board OS 1.2 (x)"),
        ("PRETTY_NAME=Tiny\n", "Tiny"),
        ("NAME=x\n", "unknown"),
    ],
)
def test_the_name_of_the_operating_system(tmp_path: Path, content: str, name: str) -> None:
    (tmp_path / "os-release").write_text(content)
    done = subprocess.run(
        [SCRIPTS / "mender-inventory-os", tmp_path / "os-release"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"os={name}\n"


def test_a_device_without_network_interfaces_has_a_line_about_them(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", SCRIPTS / "mender-inventory-network", tmp_path], stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout == "network_interfaces=none\n"
