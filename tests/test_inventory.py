"""What the device says of itself, and when it says it again."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.device import MENDERS, Device, Run

from mender_oneshot.devserver import DevServer


def attributes(server: DevServer) -> dict[str, Any]:
    found: dict[str, Any] = dict(server.device().attributes)
    found.pop("mender_client_version", None)
    return found


def test_what_is_always_sent(accepted: Device, server: DevServer) -> None:
    accepted.ok("send-inventory")
    assert attributes(server) == {"artifact_name": "release-1", "device_type": "board"}
    assert "mender-oneshot" in str(server.device().attributes["mender_client_version"])


def test_scripts_in_order_of_name_one_value_as_itself_several_as_a_list(
    accepted: Device, server: DevServer
) -> None:
    accepted.script("inventory/mender-inventory-2", "#!/bin/sh\necho disk=b\necho kernel=6.1\n")
    accepted.script("inventory/mender-inventory-1", "#!/bin/sh\necho disk=a\n")
    accepted.ok("send-inventory")
    found = attributes(server)
    assert (found["disk"], found["kernel"]) == (["a", "b"], "6.1")


def test_a_rejected_token_does_not_run_the_scripts_again(
    accepted: Device, server: DevServer, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    accepted.script("inventory/mender-inventory-count", f"#!/bin/sh\necho run >> {runs}\necho also=3\n")
    server.revoke_tokens()
    asked = len(server.requests)
    accepted.ok("send-inventory")
    assert [seen.status for seen in server.requests[asked:]] == [401, 200, 200]
    assert attributes(server)["also"] == "3"
    assert runs.read_text() == "run\n"


def problems(done: Run) -> list[str]:
    """The warnings of an invocation."""
    return [line.removeprefix("warning: ") for line in done.err.splitlines()]


GOOD = "#!/bin/sh\necho also=3\n"

# The name and the text of a script beside a good one, its mode, and what is said of it; "" for nothing.
FILES: dict[str, tuple[str, str, int, str]] = {
    "fails": ("mender-inventory-x", "#!/bin/sh\necho half=1\nexit 3\n", 0o755, "exited with status 3"),
    "no interpreter": ("mender-inventory-x", "#!/no/such\n", 0o755, "names the interpreter /no/such"),
    "Windows": ("mender-inventory-x", "#!/bin/sh\r\necho x=1\r\n", 0o755, "Windows line endings"),
    "no #!": ("mender-inventory-x", "echo x=1\n", 0o755, "does not begin with #!"),
    "empty": ("mender-inventory-x", "", 0o755, "it is empty"),
    "endless": ("mender-inventory-x", "#!/bin/sh\nyes\n", 0o755, "more than 1048576 bytes"),
    "not executable": ("mender-inventory-x", "#!/bin/sh\necho x=1\n", 0o644, "chmod +x"),
    "another name": ("my-inventory", "#!/bin/sh\necho x=1\n", 0o755, "does not begin with mender-inventory-"),
    "says nothing": ("mender-inventory-x", "#!/bin/sh\nexit 0\n", 0o755, "printed no key=value line"),
    "no pair": ("mender-inventory-x", "#!/bin/sh\necho x: 1\necho =1\n", 0o755, "printed no key=value line"),
    "some pairs": ("mender-inventory-x", "#!/bin/sh\necho good=1\necho no pair\n", 0o755, ""),
}

LEFTOVERS = [
    *("mender-inventory-good~", "#mender-inventory-good#", ".#mender-inventory-good"),
    *("mender-inventory-good.bak", "mender-inventory-good.BAK", "mender-inventory-good.orig"),
    *("mender-inventory-good.old", "mender-inventory-good.swp", ".mender-inventory-good.swp"),
    *("mender-inventory-good.dpkg-old", "mender-inventory-good.dpkg-dist", "mender-inventory-good.dpkg-new"),
    *("mender-inventory-good.rpmsave", "mender-inventory-good.rpmnew"),
]


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_adds_nothing_is_named_and_the_others_are_sent(
    accepted: Device, server: DevServer, case: str
) -> None:
    name, text, mode, reason = FILES[case]
    accepted.script("inventory/mender-inventory-good", GOOD)
    path = accepted.script(f"inventory/{name}", text, mode)
    done = accepted.ok("send-inventory")
    expected = {"artifact_name": "release-1", "device_type": "board", "also": "3"}
    assert attributes(server) == expected | ({} if reason else {"good": "1"})
    said = problems(done)
    found = [check["message"] for check in accepted.run("doctor", "--json").json["checks"]]
    if not reason:
        assert said == []
        return
    assert len(said) == 1
    assert str(path) in said[0]
    assert reason in said[0]
    assert said[0] in found


def test_what_editors_and_packages_leave_behind_is_not_run(accepted: Device, server: DevServer) -> None:
    accepted.script("inventory/mender-inventory-good", GOOD)
    paths = [accepted.script(f"inventory/{name}", "#!/bin/sh\necho also=4\n") for name in LEFTOVERS]
    said = problems(accepted.ok("send-inventory"))
    assert attributes(server)["also"] == "3"
    assert all("its name is that of a backup" in line for line in said)
    assert all(any(f" {path}: " in line for line in said) for path in paths)
    assert len(said) == len(paths)


@pytest.mark.parametrize(
    ("kind", "reason"), [("directory", "it is a directory"), ("link", "which does not exist")]
)
def test_what_is_no_file_is_named(accepted: Device, server: DevServer, kind: str, reason: str) -> None:
    path = accepted.scripts / "inventory/mender-inventory-x"
    path.mkdir() if kind == "directory" else path.symlink_to("/nonexistent/script")
    (said,) = problems(accepted.ok("send-inventory"))
    assert str(path) in said
    assert reason in said
    assert len(attributes(server)) == 2


# What a script prints by printf(1), the attributes that come of it, the lines named, and why.
LINES: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "one byte that is not UTF-8": (
        r"ssid=Caf\351\nmodel=X1\n", {"ssid": "Caf\ufffd", "model": "X1"}, "line 1", "not UTF-8",
    ),
    "bytes that are not UTF-8": (
        r"a=1\nx=\377\376\ny=\200\n", {"a": "1", "x": "\ufffd\ufffd", "y": "\ufffd"},
        "2 lines (2, 3)", "not UTF-8",
    ),
    "NUL in a name": (r"good=1\nb\000d=2\nalso=3\n", {"good": "1", "also": "3"}, "line 2", "NUL"),
    "NUL in a value": (r"good=1\nbad=\0002\n", {"good": "1"}, "line 2", "NUL"),
    "many NULs": (r"%0.sx\000=1\n" + r"good=1\n", {"good": "1"}, "line 1", "NUL"),
    "an empty value": (r"empty=\nempty=\ngood=1\n", {"empty": ["", ""], "good": "1"}, "", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", LINES)
def test_a_line_that_the_server_rejects_costs_that_line_only(
    accepted: Device, server: DevServer, case: str
) -> None:
    printed, expected, lines, reason = LINES[case]
    path = accepted.script("inventory/mender-inventory-x", f"#!/bin/sh\nprintf '{printed}'\n")
    said = problems(accepted.ok("send-inventory"))
    assert attributes(server) == {"artifact_name": "release-1", "device_type": "board"} | expected
    assert all(line.startswith(f"{path}, {lines}: ") and reason in line for line in said)
    assert len(said) == bool(reason)


@pytest.mark.parametrize(
    ("name", "sent"),
    [("n" * 1024, True), ("n" * 1025, False), ("\u00e9" * 512, True), ("\u00e9" * 513, False)],
)
def test_names_up_to_1024_bytes_are_sent(accepted: Device, server: DevServer, name: str, sent: bool) -> None:
    path = accepted.script("inventory/mender-inventory-x", f"#!/bin/sh\necho '{name}=1'\necho good=1\n")
    said = problems(accepted.ok("send-inventory"))
    assert attributes(server)["good"] == "1"
    assert (name in attributes(server)) is sent
    assert [line.startswith(f"{path}, line 1: ") for line in said] == ([] if sent else [True])


def test_of_too_many_attributes_the_first_are_sent(accepted: Device, server: DevServer) -> None:
    """The client's own are always among them, and a value more of the same name is no attribute more."""
    (accepted.conf / "artifact_info").write_text("artifact_name=release-1\nrootfs-image.version=7\n")
    accepted.script("inventory/mender-inventory-1", "#!/bin/sh\nfor i in $(seq 90); do echo a$i=$i; done\n")
    second = accepted.script(
        "inventory/mender-inventory-2", "#!/bin/sh\nfor i in $(seq 20); do echo b$i=$i; done\necho b1=x\n"
    )
    third = accepted.script("inventory/mender-inventory-3", "#!/bin/sh\necho c=1\necho artifact_name=x\n")
    done = accepted.ok("send-inventory")
    found = server.device().attributes
    assert len(found) == 100
    assert found["artifact_name"] == "release-1"
    assert found["rootfs-image.version"] == "7"
    assert {"device_type", "mender_client_version", "a90", "b6"} <= set(found)
    assert found["b1"] == ["1", "x"]
    assert "b7" not in found
    said = problems(done)
    assert [line.partition(":")[0] for line in said] == [
        f"{second}, 14 lines (7, 8, 9, ...)",
        f"{third}, line 1",
    ]
    assert all("only 100 attributes" in line for line in said)
    checks = accepted.run("doctor", "--json").json["checks"]
    assert [check["message"] for check in checks if check["name"] == "inventory" and not check["ok"]] == said


@pytest.mark.parametrize("letter", ["x", '"', "\u00e9"])
def test_of_too_many_bytes_the_first_are_sent(accepted: Device, server: DevServer, letter: str) -> None:
    for name in "ab":
        (accepted.root / "value").write_text(letter * 140_000)
        accepted.script(
            f"inventory/mender-inventory-{name}",
            f"#!/bin/sh\nv=$(cat {accepted.root}/value)\n"
            f"for i in 1 2 3; do echo {name}$i=$v; done\necho {name}=1\n",
        )
    done = accepted.ok("send-inventory")
    found = attributes(server)
    assert {"a1", "a", "b"} <= set(found)
    assert server.requests[-1].status == 200
    assert all("only 1048576 bytes" in line for line in problems(done))
    assert len(found) < 10 or letter == "x"


def test_a_flood_of_problems_is_bounded(accepted: Device, server: DevServer) -> None:
    for number in range(50):
        accepted.script(f"inventory/other-{number}", "x", mode=0o644)
    assert len(problems(accepted.ok("send-inventory"))) == 21
    assert len(attributes(server)) == 2


def test_problems_are_not_repeated_while_nothing_changes(accepted: Device, server: DevServer) -> None:
    accepted.script("inventory/other", "x", mode=0o644)
    done = accepted.ok("run", "--all")
    assert len(problems(done)) == 1
    accepted.make_due("send-inventory")
    done = accepted.ok("run", "--json")
    assert done.json["steps"][0]["outcome"] == "unchanged"
    assert done.err == ""


def test_a_script_whose_child_keeps_stdout_open_is_over_when_it_ends(
    accepted: Device, server: DevServer
) -> None:
    accepted.script("inventory/mender-inventory-forks", "#!/bin/sh\necho forked=1\nsleep 60 &\n")
    accepted.ok("--max-runtime", "20", "send-inventory")
    assert attributes(server)["forked"] == "1"


def test_no_scripts_at_all(accepted: Device, server: DevServer) -> None:
    (accepted.scripts / "inventory").rmdir()
    done = accepted.ok("send-inventory")
    assert done.err == ""
    assert attributes(server)["device_type"] == "board"
    assert accepted.run("doctor", "--json").json["checks"][-3]["ok"]


REJECTION = json.dumps({"error": "too many attributes", "request_id": "1"})


def test_patch_only_where_put_is_not_known(accepted: Device, server: DevServer) -> None:
    server.faults.add(match="PUT */attributes", status=405)
    accepted.ok("send-inventory")
    assert [seen.method for seen in server.requests[-2:]] == ["PUT", "PATCH"]
    server.faults.add(match="PUT */attributes", status=400, body=REJECTION)
    done = accepted.run("send-inventory")
    assert done.code == 69
    assert "too many attributes" in done.err
    assert server.requests[-1].method == "PUT"


def test_the_same_inventory_is_not_sent_twice_by_run(accepted: Device, server: DevServer) -> None:
    accepted.ok("run", "--all")
    asked = len(server.requests)
    accepted.make_due("send-inventory")
    assert accepted.ok("run", "--json").json["steps"][0]["outcome"] == "unchanged"
    assert len(server.requests) == asked
    # After a day it is sent again: the server may have lost it.
    accepted.make_due("send-inventory")
    accepted.age_sent_inventory()
    assert accepted.ok("run", "--json").json["steps"][0]["outcome"] == "sent"
    accepted.make_due("send-inventory")
    (accepted.conf / "artifact_info").write_text("artifact_name=release-1b\n")
    assert accepted.ok("run", "--json").json["steps"][0]["outcome"] == "sent"
    # A new token may mean a server that does not know us any more.
    accepted.ok("auth", "--fresh")
    accepted.make_due("send-inventory")
    assert accepted.ok("run", "--json").json["steps"][0]["outcome"] == "sent"


def test_a_portals_page_is_not_taken_for_an_acknowledgement(accepted: Device, server: DevServer) -> None:
    page = "<html>Please log in</html>"
    server.faults.add(match="PUT */attributes", status=200, body=page, headers={"Content-Type": "text/html"})
    done = accepted.run("send-inventory")
    assert done.code == 76
    assert "portal" in done.err
    assert "inventory_sent_at" not in accepted.state


@pytest.mark.parametrize("status", [400, 413])
def test_an_inventory_that_is_rejected_is_named_with_its_size(
    accepted: Device, server: DevServer, status: int
) -> None:
    server.faults.add(match="PUT */attributes", status=status, body=MENDERS)
    done = accepted.run("send-inventory")
    assert done.code == 69
    body = server.requests[-1].body
    assert (
        f"answered {status} (as the test wants it); this inventory has {len(json.loads(body))} attributes"
        in done.err
    )
    assert f" and {len(body)} bytes" in done.err


@pytest.mark.parametrize("status", [400, 413])
def test_a_gateway_that_rejects_an_inventory_is_no_fault_of_the_scripts(
    accepted: Device, server: DevServer, status: int
) -> None:
    server.faults.add(match="PUT */attributes", status=status)
    done = accepted.run("send-inventory")
    assert (done.code, "inventory has" in done.err) == (75, False), done.err
