"""Asking for an update, and the traps of the answer (device-api.md section 3)."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.artifacts import make_artifact
from helpers.device import MENDERS, Device, Release

from mender_oneshot import plan
from mender_oneshot.devserver import DevServer
from mender_oneshot.state import Result

STORAGE = "GET /storage/*"


def nexts(server: DevServer) -> list[tuple[str, int]]:
    return [(f"{s.method} {s.path[13:15]}", s.status) for s in server.requests if s.path.endswith("/next")]


def test_check_update_exits_with_16_only_if_there_is_an_update(accepted: Device, release: Release) -> None:
    assert accepted.run("check-update", "--exit-code").code == 0
    assert accepted.ok("check-update", "--json").json["deployment"] is None
    deployment = release()
    done = accepted.run("check-update", "--exit-code", "--json")
    assert done.code == 16
    assert done.json["deployment"] == deployment
    assert done.json["artifact_name"] == "release-2"
    assert accepted.ok("check-update").out == f"There is an update: release-2 (deployment {deployment}).\n"


def test_the_older_form_on_404_only_and_remembered(
    accepted: Device, server: DevServer, release: Release
) -> None:
    accepted.ok("check-update")
    accepted.ok("check-update")
    assert nexts(server) == [("POST v2", 404), ("GET v1", 204), ("GET v1", 204)]
    server.faults.add(match="* */next", status=500)
    assert accepted.run("check-update").code == 75
    assert nexts(server)[-1] == ("GET v1", 500)
    accepted.ok("auth", "--fresh")
    accepted.ok("check-update")
    assert nexts(server)[4:] == [("POST v2", 404), ("GET v1", 204)]


def test_the_form_is_not_changed_during_a_deployment(
    accepted: Device, server: DevServer, release: Release
) -> None:
    """The server fails a deployment about which it is asked in two forms."""
    release()
    accepted.run("check-update")
    accepted.ok("auth", "--fresh")
    accepted.run("check-update")
    assert nexts(server) == [("POST v2", 404), ("GET v1", 200), ("GET v1", 200)]


def test_a_server_with_the_newer_form_gets_all_provides(tmp_path: Path, python: str) -> None:
    with DevServer(tmp_path / "server", v2=True, accept_all=True) as server:
        device = Device(tmp_path / "device", python)
        device.configure(ServerURL=server.url, ServerCertificate=str(server.ca))
        (device.conf / "artifact_info").write_text("artifact_name=release-1\nrootfs-image.version=7\n")
        device.ok("auth")
        device.ok("check-update")
        seen = server.requests[-1]
        assert (seen.method, seen.status) == ("POST", 204)
        assert json.loads(seen.body)["device_provides"] == {
            "artifact_name": "release-1",
            "device_type": "board",
            "rootfs-image.version": "7",
        }


def test_a_device_that_changed_in_the_middle_lets_go(
    accepted: Device, server: DevServer, release: Release
) -> None:
    deployment = release()
    accepted.ok("check-update")
    (accepted.data / "artifact.part").write_bytes(b"half")
    (accepted.conf / "artifact_info").write_text("artifact_name=release-1b\n")
    assert accepted.ok("check-update", "--json").json["outcome"] == "conflict"
    assert server.status(deployment) == "failure"
    assert not (accepted.data / "artifact.part").exists()
    assert not accepted.deployment


def test_a_withdrawn_deployment_is_dropped(accepted: Device, server: DevServer, release: Release) -> None:
    deployment = release()
    accepted.ok("check-update")
    server.abort(deployment)
    assert accepted.ok("check-update", "--json").json["outcome"] == "withdrawn"
    assert accepted.run("download").code == 2


def test_a_newer_deployment_replaces_the_one_in_hand(
    accepted: Device, server: DevServer, release: Release
) -> None:
    first = release()
    accepted.ok("check-update")
    (accepted.data / "artifact.part").write_bytes(b"half of release-2")
    server.abort(first)
    second = release("release-3")
    assert accepted.ok("check-update", "--json").json["deployment"] == second
    assert not (accepted.data / "artifact.part").exists()


def test_a_deployment_that_is_over_is_never_done_again(
    accepted: Device, server: DevServer, release: Release
) -> None:
    """A late status makes the server offer a finished deployment again."""
    deployment = release()
    accepted.ok("check-update")
    (accepted.data / "update.lock").write_text(deployment)
    accepted.ok("report", "--success")
    (accepted.data / "update.lock").unlink()
    server.faults.add(match="GET */next", status=200, body=json.dumps(answer(deployment)))
    assert accepted.ok("check-update", "--json").json["outcome"] == "over"
    assert accepted.ok("run", "--json").json["steps"][0]["outcome"] == "delivered"
    assert server.status_history(deployment) == ["success", "success"]


def test_a_result_sent_again_starts_with_no_refusals(
    accepted: Device, server: DevServer, release: Release
) -> None:
    deployment = release()
    accepted.end_last(deployment, "success", refusals=9)
    assert accepted.ok("check-update", "--json").json["outcome"] == "over"
    server.faults.add(match="PUT */status", status=400, body=MENDERS)
    assert accepted.run("run").code == 69
    assert accepted.ok("status", "--json").json["queued_results"] == [
        {"deployment": deployment, "status": "success"}
    ]


def failed(device: Device, server: DevServer, deployment: str) -> None:
    """The sub-updater has reported a failure, and the server offers the deployment again."""
    device.ok("report", "--failure")
    (device.data / "update.lock").unlink()
    (device.data / "artifact.mender").unlink()
    server.faults.clear()
    offer = json.dumps(answer(deployment, source={"uri": f"{server.url}/nothing", "expire": ""}))
    server.faults.add(match="GET */next", status=200, body=offer, count=None)


def handed_off(device: Device, deployment: str) -> None:
    """An update that is being installed."""
    (device.data / "update.lock").write_text(deployment)
    (device.data / "artifact.mender").write_bytes(b"")
    device.hand_off(deployment)


def test_an_offer_after_a_failure_is_a_new_attempt(
    accepted: Device, server: DevServer, release: Release
) -> None:
    deployment = release()
    accepted.ok("check-update")
    handed_off(accepted, deployment)
    failed(accepted, server, deployment)
    accepted.make_due("check-update")
    (step,) = accepted.ok("run", "--all", "--only", "update", "--json").json["steps"]
    assert step["outcome"] == "waiting"
    assert "is due in" in step["message"]
    accepted.make_due("check-update")
    accepted.forget_failures()
    accepted.age_last_result()
    (step,) = accepted.ok("run", "--only", "update", "--json").json["steps"]
    assert (step["outcome"], step["deployment"]) == ("update", deployment)
    handed_off(accepted, deployment)
    assert accepted.ok("report", "--success", "--json").json["outcome"] == "delivered"
    assert server.status_history(deployment)[-2:] == ["failure", "success"]
    assert accepted.attempts == 2
    assert "past_results" not in accepted.state


def test_the_attempts_at_one_deployment_have_an_end(
    accepted: Device, server: DevServer, release: Release
) -> None:
    deployment = release()
    accepted.ok("check-update")
    handed_off(accepted, deployment)
    failed(accepted, server, deployment)
    accepted.set_attempts(9)
    assert accepted.ok("check-update", "--json").json["outcome"] == "update"
    handed_off(accepted, deployment)
    failed(accepted, server, deployment)
    assert accepted.attempts == 10
    assert accepted.ok("check-update", "--json").json["outcome"] == "over"


@pytest.mark.parametrize(
    "before",
    [
        {"status": "success", "answer": "delivered"},
        {"status": "failure", "answer": "aborted"},
        {"status": "failure", "answer": "unknown"},
        {"status": "failure"},
    ],
)
def test_after_any_other_end_an_offer_is_no_new_attempt(
    accepted: Device, release: Release, before: dict[str, str]
) -> None:
    accepted.end_last(release(), **before)
    assert accepted.ok("check-update", "--json").json["outcome"] == "over"


def test_the_pause_before_an_attempt_grows() -> None:
    results = [Result("d", "failure", 1000, attempts=count) for count in range(1, 11)]
    pauses = [plan.retry_remaining(result, 1000) for result in results]
    assert pauses == [60 * 2**count for count in range(10)]


def test_the_same_artifact_of_another_deployment_is_not_fetched_again(
    accepted: Device, server: DevServer, release: Release
) -> None:
    first = release(size=200_000)
    accepted.ok("check-update")
    server.faults.add(match=STORAGE, cut_after=100_000)
    assert accepted.run("download").code == 75
    server.abort(first)
    second = server.deploy("release-2")
    part = (accepted.data / "artifact.part").read_bytes()
    known = accepted.state["deployment"] | {"refused": 1, "spliced": True}
    accepted.alter_state(deployment=known)
    assert accepted.ok("check-update", "--json").json["deployment"] == second
    assert (accepted.data / "artifact.part").read_bytes() == part
    of_the_object = ("etag", "last_modified", "size", "boot", "refused", "spliced")
    found = accepted.state["deployment"]
    assert [found[name] for name in of_the_object] == [known[name] for name in of_the_object]
    accepted.ok("download")


def test_another_server_has_not_withdrawn_what_it_never_had(
    accepted: Device, release: Release, tmp_path: Path
) -> None:
    deployment = release()
    accepted.ok("check-update")
    with DevServer(tmp_path / "other", accept_all=True) as other:
        accepted.configure(ServerURL=other.url, ServerCertificate=str(other.ca))
        answer = accepted.ok("check-update", "--json").json
    assert answer["outcome"] == "withdrawn"
    assert f"Deployment {deployment} came from 127.0.0.1" in answer["message"]


def answer(deployment: str = "a-b-c", **artifact: Any) -> dict[str, Any]:
    return {
        "id": deployment,
        "artifact": {
            "artifact_name": "release-2",
            "source": {"uri": "https://127.0.0.1:9/x", "expire": "2099-01-01T00:00:00.123456789Z"},
            "device_types_compatible": ["board"],
        }
        | artifact,
    }


@pytest.mark.parametrize(
    "body",
    [
        "<html>Please log in</html>",
        "",
        "[]",
        "null",
        "{}",
        "[" * 100_000,
        json.dumps(answer("../../../etc")),
        json.dumps(answer("a\nb")),
        json.dumps({"id": "a-b-c"}),
        json.dumps({"id": "a-b-c", "artifact": "none"}),
        '{"id": "a", "artifact": {"artifact_name": "x" ' + " " * 2_000_000,
    ],
    ids=[
        "html",
        "empty",
        "list",
        "null",
        "object",
        "deep",
        "path",
        "newline",
        "no artifact",
        "a text",
        "huge",
    ],
)
def test_an_invalid_answer_to_a_check_ends_with_76(accepted: Device, server: DevServer, body: str) -> None:
    accepted.ok("check-update")
    server.faults.add(match="GET */next", status=200, body=body)
    done = accepted.run("check-update")
    assert done.code == 76
    assert "check that ServerURL is a Mender server" in done.err
    assert len(done.err.splitlines()) == 1
    assert not accepted.deployment


UNUSABLE: dict[str, tuple[dict[str, Any], str]] = {
    "file": ({"source": {"uri": "file:///etc/shadow"}}, "artifact.source.uri"),
    "no uri": ({"source": {}}, "artifact.source.uri"),
    "no source": ({"source": None}, "artifact.source.uri"),
    "long uri": ({"source": {"uri": "https://s/" + "a" * 8192}}, "artifact.source.uri"),
    "number": ({"artifact_name": 7}, "artifact.artifact_name"),
    "no name": ({"artifact_name": ""}, "artifact.artifact_name"),
    "control": ({"artifact_name": "a\x1b[2J"}, "artifact.artifact_name"),
    "long name": ({"artifact_name": "x" * 8193}, "artifact.artifact_name"),
    "artifact id": ({"id": 5}, "artifact.id"),
    "expire": ({"source": {"uri": "https://s/a", "expire": 5}}, "artifact.source.expire"),
}


@pytest.mark.parametrize(("artifact", "member"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_deployment_that_cannot_be_carried_out_is_failed_once(
    accepted: Device, server: DevServer, release: Release, artifact: dict[str, Any], member: str
) -> None:
    deployment = release()
    accepted.ok("check-update")
    accepted.forget_deployment()
    server.faults.add(
        match="GET */next", count=2, status=200, body=json.dumps(answer(deployment, **artifact))
    )
    done = accepted.run("check-update")
    assert (done.code, len(done.err.splitlines())) == (76, 1)
    assert f"Deployment {deployment} cannot be carried out: its member {member} " in done.err
    assert accepted.ok("run", "--force", "--json").json["steps"][0]["outcome"] == "delivered"
    assert server.status_history(deployment) == ["failure"]
    assert len(server.log(deployment) or []) == 1
    assert member in (server.log(deployment) or [])[-1]["message"]
    # Offered again, it gets the same answer, and never a second log line or attempt.
    assert accepted.run("check-update").code == 76
    accepted.ok("run", "--force")
    assert set(server.status_history(deployment)) == {"failure"}
    assert not accepted.deployment


@pytest.mark.parametrize("status", [500, 502, 503, 408])
def test_a_server_in_trouble_is_asked_again_later(accepted: Device, server: DevServer, status: int) -> None:
    accepted.ok("check-update")
    accepted.forget_check()
    server.faults.add(match="GET */next", status=status)
    assert accepted.run("run").code == 75
    asked = len(server.requests)
    accepted.ok("run", "--all")
    # Only the inventory went out: the check keeps its distance of a minute.
    assert [seen.path.rpartition("/")[2] for seen in server.requests[asked:]] in ([], ["attributes"])
    accepted.fail("check-update")
    assert accepted.ok("run", "--json").json["steps"][0]["step"] == "check-update"
    assert not accepted.failures


def test_nothing_is_asked_while_a_result_waits(accepted: Device, server: DevServer, release: Release) -> None:
    """`next` with the new software running makes the server fail the deployment."""
    deployment = release()
    accepted.ok("check-update")
    (accepted.data / "update.lock").write_text(deployment)
    server.faults.add(match="PUT */status", status=503)
    assert accepted.ok("report", "--success", "--json").json["outcome"] == "queued"
    (accepted.conf / "artifact_info").write_text("artifact_name=release-2\n")
    assert accepted.run("check-update").code == 75
    assert accepted.ok("run", "--force", "--json").json["steps"][0]["outcome"] == "delivered"
    (accepted.data / "update.lock").unlink()
    accepted.ok("check-update")
    assert server.status_history(deployment) == ["success"]


def test_incompatible_and_installed_releases_are_the_servers_business(
    accepted: Device, server: DevServer, tmp_path: Path
) -> None:
    server.upload(make_artifact(tmp_path / "other.mender", name="other", device_types=("other",)))
    server.upload(make_artifact(tmp_path / "same.mender", name="release-1"))
    for name in ("other", "release-1"):
        server.deploy(name)
        assert accepted.ok("check-update", "--json").json["outcome"] == "nothing"


def test_an_older_deployment_that_is_over_is_not_done_again_either(
    accepted: Device, server: DevServer, release: Release
) -> None:
    """A server restored from a backup may offer what was done two updates ago."""
    accepted.sub_updater()
    first = release("release-2")
    for deployment in (first, release("release-3")):
        accepted.ok("run", "--all", "--force")
        accepted.ok("report", "--success")
        (accepted.data / "update.lock").unlink()
        assert server.status(deployment) == "success"
    server.faults.add(match="GET */next", status=200, body=json.dumps(answer(first)))
    assert accepted.ok("check-update", "--json").json["outcome"] == "over"
    assert accepted.run("download").code == 2


@pytest.mark.parametrize(("later", "outcome"), [(0, "over"), (1, "over"), (7, "over"), (8, "update")])
def test_the_last_eight_results_are_remembered(
    accepted: Device, server: DevServer, release: Release, later: int, outcome: str
) -> None:
    first = release()
    for deployment in (first, *(f"deployment-{number}" for number in range(later))):
        (accepted.data / "update.lock").write_text(deployment)
        accepted.ok("report", "--success")
        (accepted.data / "update.lock").unlink()
    server.faults.add(match="GET */next", status=200, body=json.dumps(answer(first)))
    assert accepted.ok("check-update", "--json").json["outcome"] == outcome


def test_a_link_that_nothing_protects_is_named(accepted: Device, server: DevServer) -> None:
    """By https from the server, by http from the storage, and no signature to check."""
    offer = json.dumps(answer(source={"uri": "http://127.0.0.1:9/x"}))
    server.faults.add(match="GET */next", status=200, body=offer)
    done = accepted.run("check-update")
    assert (done.code, len(done.err.splitlines())) == (0, 1)
    assert "Deployment a-b-c: the server uses https, but the link to its artifact uses plain http" in done.err
    doctor = accepted.run("doctor")
    assert "set ArtifactVerifyKey, or use https for the storage" in doctor.out + doctor.err


@pytest.mark.parametrize(
    ("location", "words"),
    [
        (
            "https://127.0.0.1:1/login?secret=topsecret",
            "redirects (302) to https://127.0.0.1:1; set ServerURL to that",
        ),
        (
            "https://portal.example/?secret=topsecret",
            "to https://portal.example; if that is your Mender server",
        ),
        ("/login?secret=topsecret", "answered 302 with"),
        ("", "answered 302 with"),
    ],
)
def test_a_redirect_is_shown_with_its_host_only(
    accepted: Device, server: DevServer, location: str, words: str
) -> None:
    server.faults.add(count=None, redirect=location, match="* */next")
    for command in ("check-update", "doctor"):
        done = accepted.run(command)
        assert words in done.out + done.err, done
        assert "topsecret" not in done.out + done.err


ENDS: dict[str, tuple[dict[str, Any], int, str]] = {
    "rejected": (
        {"status": 400, "body": MENDERS},
        69,
        "answered 400 (as the test wants it); see the server's log.",
    ),
    "no such path": (
        {"status": 405, "body": MENDERS},
        69,
        "answered 405 (as the test wants it); check ServerURL.",
    ),
    "a gateway": (
        {"status": 418},
        75,
        "answered 418 to POST .../next, which is not the answer of a Mender server; check any gateway, "
        "firewall or captive portal in between.",
    ),
    "a portal": (
        {"status": 200, "body": "<html>", "headers": {"Content-Type": "text/html; charset=utf-8"}},
        76,
        "answered 200 with 6 bytes of 'text/html' instead of deployment instructions; check that ServerURL "
        "is a Mender server and that no captive portal intercepts the connection.",
    ),
    "another status": (
        {"status": 201},
        76,
        "answered 201 with 0 bytes of 'no content type' instead of the expected answer;",
    ),
    "1 MiB": ({"status": 200, "body": " " * ((1 << 20) - 2) + "{}"}, 76, "with 1048576 bytes of"),
    "more than 1 MiB": (
        {"status": 400, "body": " " * (1 << 20) + "x"},
        76,
        "instead of at most 1048576 bytes;",
    ),
    "a redirect to nowhere": ({"status": 302}, 76, "answered 302 with 0 bytes of"),
    "in trouble": ({"status": 503}, 75, "answered 503; the next run will retry."),
    "timed out": ({"status": 408}, 75, "answered 408; the next run will retry."),
    "busy": (
        {"retry_after": 600},
        75,
        "answered 429 (too many requests); it asked to wait 10 min 0 s (until ",
    ),
    "busy, for no time": (
        {"retry_after": 0},
        75,
        "answered 429 (too many requests); the next run will retry.",
    ),
}


@pytest.mark.parametrize("case", ENDS)
def test_the_sentence_for_each_answer(accepted: Device, server: DevServer, case: str) -> None:
    fault, code, sentence = ENDS[case]
    server.faults.add(match="* */next", **fault)
    done = accepted.run("check-update")
    assert (done.code, sentence in done.err) == (code, True), done.err


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("http://{host}/", "{host} redirects (302) to http://{host}; set ServerURL to that."),
        ("https://127.0.0.1/", "{host} redirects (302) to https://127.0.0.1; set ServerURL to that."),
        (
            "https://portal.example/login?secret",
            "{host} redirects (302) to https://portal.example; if that is your Mender server, set "
            "ServerURL to it, else check for a captive portal.",
        ),
        ("https://{host}/login", "{host} answered 302 with 0 bytes of"),
    ],
)
def test_where_a_redirect_leads_is_said(
    accepted: Device, server: DevServer, target: str, sentence: str
) -> None:
    host = server.url.removeprefix("https://")
    server.faults.add(match="* */next", redirect=target.format(host=host))
    done = accepted.run("check-update")
    assert done.code == 76
    assert sentence.format(host=host) in done.err
