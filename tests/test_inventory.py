"""What the device says of itself, and when it says it again."""

import json
from typing import Any

from conftest import Device

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


def test_one_bad_script_never_spoils_the_rest(accepted: Device, server: DevServer) -> None:
    accepted.script("inventory/mender-inventory-0-fails", "#!/bin/sh\necho half=1\nexit 3\n")
    accepted.script("inventory/mender-inventory-1-binary", "#!/bin/sh\nprintf 'x=\\377\\376'\n")
    accepted.script("inventory/mender-inventory-2-no-program", "#!/no/such/interpreter\n")
    accepted.script("inventory/mender-inventory-3-endless", "#!/bin/sh\nyes\n")
    accepted.script("inventory/mender-inventory-4-not-for-us", "#!/bin/sh\necho no=1\n", mode=0o644)
    accepted.script("inventory/other", "#!/bin/sh\necho no=2\n")
    accepted.script(
        "inventory/mender-inventory-5-good", "#!/bin/sh\necho good=1\necho not a pair\necho =no key\n"
    )
    (accepted.scripts / "inventory/mender-inventory-6-directory").mkdir()
    done = accepted.ok("send-inventory")
    assert attributes(server) == {"artifact_name": "release-1", "device_type": "board", "good": "1"}
    assert [line.split(" is left out")[0].rpartition("-")[2] for line in done.err.splitlines()] == [
        "fails",
        "binary",
        "program",
        "endless",
    ]


def test_a_script_whose_child_keeps_stdout_open_is_over_when_it_ends(
    accepted: Device, server: DevServer
) -> None:
    accepted.script("inventory/mender-inventory-forks", "#!/bin/sh\necho forked=1\nsleep 60 &\n")
    accepted.ok("--max-runtime", "20", "send-inventory")
    assert attributes(server)["forked"] == "1"


def test_no_scripts_at_all(accepted: Device, server: DevServer) -> None:
    (accepted.scripts / "inventory").rmdir()
    done = accepted.ok("send-inventory")
    assert "cannot be read" in done.err
    assert attributes(server)["device_type"] == "board"


def test_patch_only_where_put_is_not_known(accepted: Device, server: DevServer) -> None:
    server.faults.add(match="PUT */attributes", status=405)
    accepted.ok("send-inventory")
    assert [seen.method for seen in server.requests[-2:]] == ["PUT", "PATCH"]
    server.faults.add(match="PUT */attributes", status=400, body=json.dumps({"error": "too many attributes"}))
    done = accepted.run("send-inventory")
    assert done.code == 69
    assert "too many attributes" in done.err
    assert server.requests[-1].method == "PUT"


def test_the_same_inventory_is_not_sent_twice_by_run(accepted: Device, server: DevServer) -> None:
    accepted.ok("run", "--all")
    asked = len(server.requests)
    due = {"inventory_at": accepted.state["inventory_at"] - 30000}
    accepted.alter_state(**due)
    assert accepted.ok("run", "--json").json["steps"][0]["outcome"] == "unchanged"
    assert len(server.requests) == asked
    # Not for ever: the server may have lost it.
    accepted.alter_state(**due, inventory_sent_at=accepted.state["inventory_sent_at"] - 90000)
    assert accepted.ok("run", "--json").json["steps"][0]["outcome"] == "sent"
    accepted.alter_state(**due)
    (accepted.conf / "artifact_info").write_text("artifact_name=release-1b\n")
    assert accepted.ok("run", "--json").json["steps"][0]["outcome"] == "sent"
    # A new token may mean a server that does not know us any more.
    accepted.ok("auth", "--fresh")
    accepted.alter_state(**due)
    assert accepted.ok("run", "--json").json["steps"][0]["outcome"] == "sent"


def test_a_portals_page_is_not_taken_for_an_acknowledgement(accepted: Device, server: DevServer) -> None:
    page = "<html>Please log in</html>"
    server.faults.add(match="PUT */attributes", status=200, body=page, headers={"Content-Type": "text/html"})
    done = accepted.run("send-inventory")
    assert done.code == 76
    assert "portal" in done.err
    assert "inventory_sent_at" not in accepted.state
