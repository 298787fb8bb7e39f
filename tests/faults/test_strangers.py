"""A gateway, a firewall or a portal answers in the server's place: it costs no data, and no update."""

from typing import Any, NamedTuple

import pytest
from helpers.device import MENDERS, Device, Release
from helpers.state_file import Reported

from mender_oneshot.devserver import DevServer

HTML: dict[str, Any] = {"body": "<html>Log in</html>", "headers": {"Content-Type": "text/html"}}
SPRING = '{"timestamp":"2026-11-26T10:00:00.000+00:00","status":404,"error":"Not Found","path":"/api"}'


def as_json(body: str) -> dict[str, Any]:
    return {"body": body, "headers": {"Content-Type": "application/json"}}


STRANGERS: dict[str, dict[str, Any]] = {
    "page": HTML,
    "text": {"body": "404 page not found\n", "headers": {"Content-Type": "text/plain"}},
    "empty": {"headers": {"Content-Type": "text/plain"}},
    "a list": as_json('["error", "request_id"]'),
    "a text": as_json('"an error occurred, request_id 5"'),
    "a number": as_json("5"),
    "null": as_json("null"),
    "error null": as_json('{"error": null, "request_id": null}'),
    "error empty": as_json('{"error": "", "request_id": ""}'),
    "error an object": as_json('{"error": {"code": 5}, "request_id": "1"}'),
    "id no text": as_json('{"error": "no", "request_id": 5}'),
    "no request_id": as_json('{"error": "no Route matched"}'),
    "the service's unknown path": as_json('{"error": "not found"}'),
    "Spring": as_json(SPRING),
    "deep": as_json("[" * 100_000),
    "no UTF-8": {"body": b"\xff\xfe\0e\0r", "headers": {"Content-Type": "application/json"}},
}
STATUSES = [200, 201, 204, 302, 400, 401, 403, 404, 405, 407, 409, 410, 413, 418, 422, 429, 451, 500, 502]
ENDPOINTS = {
    "auth": "POST */auth_requests",
    "next": "* */next",
    "status": "PUT */status",
    "log": "PUT */log",
    "inventory": "* */attributes",
}


class Kept(NamedTuple):
    """What no stranger may take away."""

    token: str
    deployment: str
    results: list[Reported]
    bytes: int

    @classmethod
    def by(cls, device: Device) -> "Kept":
        part, whole = device.data / "artifact.part", device.data / "artifact.mender"
        found = whole if whole.exists() else part
        size = found.stat().st_size if found.exists() else 0
        return cls(device.token, device.deployment, device.queued_results, size)


def lifted(device: Device) -> None:
    """The trouble is over, and so are the pauses."""
    device.forget_failures()
    device.forget_pauses()


ONE_AT_A_TIME = {"auth": ("auth", "--fresh"), "next": ("check-update",), "inventory": ("send-inventory",)}
TABLE = [
    (endpoint, status)
    for endpoint in ENDPOINTS
    for status in STATUSES
    # Without a body, 204 is the server's own; a log that a gateway finds too large is sent without.
    if status != 204 and (endpoint, status) != ("log", 413)
]


@pytest.mark.parametrize(("endpoint", "status"), TABLE)
def test_a_stranger_costs_nothing(
    accepted: Device, server: DevServer, release: Release, endpoint: str, status: int
) -> None:
    """Each body in turn, with half of an artifact or a result in hand; then the update is completed."""
    accepted.sub_updater()
    deployment = release(size=100_000)
    accepted.ok("check-update")
    server.faults.add(match="GET /storage/*", cut_after=50_000)
    assert accepted.run("download").code == 75
    if endpoint in ("status", "log"):
        accepted.ok("run", "--all", "--force")
        server.faults.add(match="PUT */status", drop_before=True)
        accepted.run("report", "--failure")
        (accepted.data / "update.lock").unlink()
    before = Kept.by(accepted)
    for name, answer in STRANGERS.items():
        lifted(accepted)
        server.faults.clear()
        server.faults.add(match=ENDPOINTS[endpoint], count=None, status=status, **answer)
        asked = len(server.requests)
        done = accepted.run(*ONE_AT_A_TIME.get(endpoint, ("run",)))
        good = (endpoint, status, name) == ("inventory", 200, "empty")
        assert done.code in ((0,) if good else (69, 75, 76)), (name, done)
        assert "Devices > Pending" not in done.err, (name, done)
        assert len(done.err.splitlines()) == (0 if good else 1), (name, done)
        assert 1 <= len(server.requests) - asked <= 2, name
        assert Kept.by(accepted) == before, (name, done)
    lifted(accepted)
    server.faults.clear()
    accepted.ok("run", "--all", "--force")
    if endpoint not in ("status", "log"):
        accepted.ok("report", "--failure")
    assert list(dict.fromkeys(server.status_history(deployment))) == ["downloading", "installing", "failure"]
    assert server.log(deployment)


@pytest.mark.parametrize("status", STATUSES)
def test_no_stranger_stops_an_update_at_its_statuses(
    accepted: Device, server: DevServer, release: Release, status: int
) -> None:
    accepted.sub_updater()
    for number, (name, answer) in enumerate(STRANGERS.items()):
        deployment = release(f"release-{number + 2}")
        accepted.ok("check-update")
        server.faults.add(match="PUT */status", count=2, status=status, **answer)
        for step, reported in (("download", "downloading"), ("install", "installing")):
            done = accepted.run(step)
            assert done.code == 0, (name, done)
            assert (f"Could not report the status {reported}: " in done.err) == (status != 204), (name, done)
        accepted.ok("report", "--failure")
        (accepted.data / "update.lock").unlink()
        assert server.status_history(deployment) == ["failure"]
        lifted(accepted)


def test_the_server_itself_ends_an_update(accepted: Device, server: DevServer, release: Release) -> None:
    """The other side of the table: 404 and 409 in the server's form."""
    for number, status in enumerate((404, 409)):
        deployment = release(f"release-{number + 2}")
        accepted.ok("check-update")
        server.faults.add(match="PUT */status", status=status, body=MENDERS)
        assert accepted.ok("download", "--json").json["outcome"] == "withdrawn"
        assert not accepted.deployment
        server.abort(deployment)


@pytest.mark.parametrize(
    "answer", [{"status": 401}, {"status": 401, "body": MENDERS}, {"status": 403, "body": MENDERS}]
)
def test_a_token_that_the_server_refuses_is_renewed_once(
    accepted: Device, server: DevServer, answer: dict[str, Any]
) -> None:
    """A revoked token gets an empty 401 without a content type, any other a reason."""
    server.faults.add(match="* */next", **answer)
    asked = len(server.requests)
    accepted.ok("check-update")
    assert [seen.status for seen in server.requests[asked:]][:2] == [answer["status"], 200]
    # It keeps rejecting: the message does not suggest what has just been done.
    server.faults.add(match="* */next", count=None, **answer)
    done = accepted.run("check-update")
    assert done.code == (77 if answer["status"] == 401 else 69)
    assert "although it has authorized this device" in done.err
    assert accepted.token


def test_a_form_that_works_is_kept_while_a_deployment_is_in_hand(
    accepted: Device, server: DevServer, release: Release
) -> None:
    """The server fails a deployment that it is asked about in two forms; a gateway's 404 must not do that."""
    release()
    accepted.ok("check-update")
    accepted.alter_state(form="v2")
    asked = len(server.requests)
    done = accepted.run("check-update")
    assert done.code == 75
    assert [seen.method for seen in server.requests[asked:]] == ["POST"]


def test_doctor_knows_a_stranger(accepted: Device, server: DevServer) -> None:
    server.faults.add(match="GET */next", status=401, **HTML)
    done = accepted.run("doctor")
    assert "which is not the answer of a Mender server" in done.out + done.err
