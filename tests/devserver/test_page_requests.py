"""What the server answers to the web page, and to pages that are not its own, without a browser."""

import re
from pathlib import Path

import pytest
from helpers.artifacts import make_artifact
from helpers.raw_device import RawDevice, fetch, get
from helpers.raw_user import RawUser

from mender_oneshot.devserver import DevServer, web_page

DEVICES = "/api/management/v2/devauth/devices"
FILES = sorted(path.name for path in (Path(web_page.__file__).parent / "web").iterdir())
SENT = [name for name in FILES if not name.startswith(("LICENSE", "README"))]


@pytest.mark.parametrize("name", ["", *(f"devserver/page/{name}" for name in SENT)])
def test_each_file_of_the_page_is_sent_with_a_strict_policy(server: DevServer, name: str) -> None:
    reply = get(server, f"{server.url}/{name}")
    assert reply.status == 200
    assert reply.body
    policy = reply.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert not [header for header in reply.headers if header.lower().startswith("access-control")]
    assert get(server, f"{server.url}/{name}", "HEAD").status == 200


@pytest.mark.parametrize("name", ["LICENSE.xterm", "README", "..%2fserver.py", "%2e%2e/server.py", "none.js"])
def test_nothing_but_the_files_of_the_page_is_sent(server: DevServer, name: str) -> None:
    assert get(server, f"{server.url}/devserver/page/{name}").status == 404


def test_every_address_in_the_page_is_one_of_its_files(server: DevServer) -> None:
    text = get(server, f"{server.url}/").body.decode()
    found = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert len(found) >= 4
    assert {get(server, server.url + path).status for path in found} == {200}
    assert "style=" not in text
    assert not re.search(r"\son[a-z]+=", text)


def test_no_script_of_the_page_makes_markup_from_text() -> None:
    for name in ("page.js", "server.js", "terminal.js", "texts.js"):
        text = (Path(web_page.__file__).parent / "web" / name).read_text()
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|setAttribute\(\"on", text
        )


def test_the_overview_is_for_users_who_are_logged_in(server: DevServer, tmp_path: Path) -> None:
    assert get(server, server.url + web_page.OVERVIEW).status == 401
    device = RawDevice(server)
    assert get(server, server.url + web_page.OVERVIEW, Authorization="Bearer x.y.z").status == 401
    device.accepted()
    assert (
        fetch(
            server, "GET", server.url + web_page.OVERVIEW, None, {"Authorization": f"Bearer {device.token}"}
        ).status
        == 401
    )
    artifact = server.upload(make_artifact(tmp_path / "a.mender"))
    deployment = server.deploy("release-2")
    user = RawUser(server)
    shown = user("GET", web_page.OVERVIEW).json
    assert [(row["id"], row["status"], row["connected"]) for row in shown["devices"]] == [
        (server.device().id, "accepted", False)
    ]
    assert [row["id"] for row in shown["artifacts"]] == [artifact]
    assert [(row["id"], row["devices"][0]["status"]) for row in shown["deployments"]] == [
        (deployment, "pending")
    ]
    device.next()
    for status in ("downloading", "downloading", "installing", "failure"):
        device.status(deployment, status)
    (target,) = user("GET", web_page.OVERVIEW).json["deployments"][0]["devices"]
    assert (target["history"], target["log"]) == (["downloading", "installing", "failure"], None)


def test_of_many_deployments_the_newest_are_listed(server: DevServer, tmp_path: Path) -> None:
    RawDevice(server).accepted()
    server.upload(make_artifact(tmp_path / "a.mender"))
    made = [server.deploy("release-2") for _ in range(web_page.DEPLOYMENT_LIMIT + 2)]
    shown = RawUser(server)("GET", web_page.OVERVIEW).json
    assert [row["id"] for row in shown["deployments"]] == made[:1:-1]
    assert shown["deployment_count"] == len(made)


def test_the_page_neither_fills_the_request_log_nor_takes_a_fault(server: DevServer) -> None:
    user = RawUser(server)
    before = len(server.requests)
    server.faults.add(match="GET *", status=500)
    assert user("GET", web_page.OVERVIEW).status == 200
    assert get(server, f"{server.url}/devserver/page/page.js").status == 200
    assert len(server.requests) == before
    assert user("GET", DEVICES).status == 500


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:1", 200),
        ("localhost", 200),
        ("LOCALHOST:8443", 200),
        ("198.51.100.7:8443", 200),
        ("[::1]:8443", 200),
        ("board.example:8443", 200),
        ("rebound.example", 403),
        ("localhost.rebound.example:8443", 403),
        ("127.0.0.1.rebound.example", 403),
    ],
)
@pytest.mark.parametrize("path", ["/", web_page.OVERVIEW, DEVICES, "/devserver/requests"])
def test_a_name_that_is_not_of_the_server_is_rejected(
    tmp_path: Path, host: str, status: int, path: str
) -> None:
    with DevServer(tmp_path / "server", tls=False, names=["Board.example"]) as server:
        assert RawUser(server)("GET", path, Host=host).status == status
        assert (
            RawDevice(server).accepted().call("GET", "/api/devices/v1/inventory/x", Host=host).status == 404
        )


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "https://rebound.example",
        "http://127.0.0.1:1",
        "https://127.0.0.1:{port}",
        "http://localhost:{port}",
        "",
    ],
)
@pytest.mark.parametrize("path", ["/", web_page.OVERVIEW, DEVICES, "/devserver/requests"])
def test_a_page_of_another_origin_is_rejected(server: DevServer, origin: str, path: str) -> None:
    origin = origin.format(port=server.url.rpartition(":")[2])
    user = RawUser(server)
    assert user("GET", path, Origin=origin).status == 403
    assert user("GET", path, Origin=server.url).status == 200


def test_the_token_of_a_terminal_is_not_in_the_request_log(server: DevServer) -> None:
    user = RawUser(server)
    sent = {"Sec-WebSocket-Protocol": f"bearer-token, {user.token}"}
    assert fetch(server, "GET", server.url + DEVICES, None, sent).status == 200
    log = get(server, f"{server.url}/devserver/requests").body.decode()
    assert DEVICES in log
    assert user.token not in log
    sent = {"Sec-WebSocket-Protocol": "bearer-token, x.y.z"}
    assert fetch(server, "GET", server.url + DEVICES, None, sent).status == 401
