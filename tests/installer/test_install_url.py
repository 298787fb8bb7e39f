"""`install URL`: the artifact is downloaded first, without a server and without a token."""

import re
import signal
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from helpers.artifacts import make_artifact
from helpers.device import Device, newest_only, one_sentence, patch_python
from helpers.raw_device import RawDevice
from helpers.update_module import Recorder

from mender_oneshot.devserver import DevServer

STORAGE = "GET /storage/*"
SIZE = 3_000_000


@pytest.fixture
def module(device: Device) -> Recorder:
    return Recorder(device)


@pytest.fixture
def link(device: Device, server: DevServer, module: Recorder, tmp_path: Path) -> str:
    """A URL of an artifact on the storage of the server, which the device has never talked to."""
    payload = {"app": bytes(range(256)) * (SIZE // 256)}
    path = make_artifact(tmp_path / "a.mender", payload_type="fake", payload=payload, compression="none")
    server.upload(path)
    other = RawDevice(server).accepted()
    server.deploy("release-2")
    return other.link()


def no_file_left(device: Device) -> bool:
    return not (device.data / "by-hand.mender").exists() and not (device.data / "installer.json").exists()


def test_an_artifact_is_downloaded_and_installed(
    device: Device, server: DevServer, module: Recorder, link: str
) -> None:
    assert "run mender-oneshot commit" in device.ok("install", link).out
    assert not (device.data / "by-hand.mender").exists()  # the module has the payload by now
    device.ok("commit")
    assert device.ok("show-artifact").out == "release-2\n"
    assert no_file_left(device)
    fetched = [seen for seen in server.requests if seen.path.startswith("/storage/")]
    assert len(fetched) == 1
    assert "authorization" not in {name.lower() for name in fetched[0].headers}


def test_a_token_is_never_sent(accepted: Device, server: DevServer, link: str) -> None:
    accepted.ok("install", link)
    fetched = [seen for seen in server.requests if seen.path.startswith("/storage/")]
    assert all("authorization" not in {name.lower() for name in seen.headers} for seen in fetched)


def test_a_connection_that_is_lost_twice_is_resumed(device: Device, server: DevServer, link: str) -> None:
    for _ in range(2):
        server.faults.add(match=STORAGE, cut_after=SIZE // 3)
    done = device.ok("install", link)
    assert done.err == ""
    fetched = [seen for seen in server.requests if seen.path.startswith("/storage/")]
    assert [seen.status for seen in fetched] == [200, 206, 206]
    assert sum(seen.sent for seen in fetched) < SIZE + 100_000


@newest_only
def test_a_kill_after_the_download_is_resumed_from_the_disk(
    device: Device, server: DevServer, module: Recorder, link: str
) -> None:
    module.at("Download", "kill -9 $PPID")
    assert device.run("install", link).code == -signal.SIGKILL
    assert (device.data / "by-hand.mender").exists()
    before = len(server.requests)
    device.ok("resume")
    device.ok("commit")
    assert device.ok("show-artifact").out == "release-2\n"
    assert len(server.requests) == before
    assert no_file_left(device)


@newest_only
def test_a_module_that_fails_leaves_no_download(device: Device, module: Recorder, link: str) -> None:
    module.at("Download", "exit 1")
    assert device.run("install", link).code == 70
    assert no_file_left(device)


BAD: dict[str, tuple[dict[str, object], int, str]] = {
    "no artifact": ({"status": 200, "body": "<html>"}, 76, "not an artifact"),
    "not found": ({"status": 404, "body": "no"}, 76, "answered 404"),
    "busy": ({"status": 503, "body": "no"}, 75, "answered 503 instead of the artifact; try again later."),
    "a redirect to http": ({"redirect": "http://127.0.0.1:1/a"}, 76, "from https to http"),
    "dropped": ({"drop_before": True, "count": None}, 75, "connection"),
}


@newest_only
@pytest.mark.parametrize("case", BAD)
def test_what_is_no_artifact_is_not_installed(
    device: Device, server: DevServer, module: Recorder, link: str, case: str
) -> None:
    fault, code, words = BAD[case]
    server.faults.add(match=STORAGE, **fault)  # type: ignore[arg-type]
    done = device.run("install", link)
    one_sentence(done, code)
    assert words in done.err.lower() or words in done.err
    assert module.calls == []
    assert no_file_left(device)


@newest_only
def test_a_host_that_always_closes_early_is_given_up(device: Device, server: DevServer, link: str) -> None:
    device.configure(RetryDownloadCount=2)
    server.faults.add(match=STORAGE, cut_after=1000, count=None)
    done = device.run("install", link)
    assert done.code == 75
    assert "after 2 attempts without progress" in done.err
    assert no_file_left(device)


@newest_only
def test_an_artifact_for_another_device_is_rejected_by_its_header(
    device: Device, server: DevServer, link: str
) -> None:
    (device.data / "device_type").write_text("device_type=other\n")
    one_sentence(device.run("install", link), 65, "device type")
    assert no_file_left(device)


@newest_only
def test_a_host_with_an_untrusted_certificate_is_rejected(device: Device, link: str) -> None:
    device.configure(ServerCertificate="")
    one_sentence(device.run("install", link), 69, "certificate")
    assert no_file_left(device)


@newest_only
def test_the_download_waits_for_an_installation(device: Device, server: DevServer, link: str) -> None:
    device.ok("install", link)
    before = len(server.requests)
    one_sentence(device.run("install", link), 75, "run mender-oneshot commit")
    assert len(server.requests) == before


@newest_only
@pytest.mark.parametrize("url", ["http://", "https://a b/", "https://user@host@other/"])
def test_an_invalid_url_is_a_usage_error(device: Device, module: Recorder, url: str) -> None:
    one_sentence(device.run("install", url), 64, "URL")


@pytest.fixture
def plain(tmp_path: Path, module: Recorder) -> Iterator[Callable[[], str]]:
    """A plain http server with one artifact, which does not announce its length."""
    content = make_artifact(tmp_path / "b.mender", payload_type="fake").read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield lambda: f"http://user:secret@127.0.0.1:{server.server_port}/b.mender?key=secret"
    server.shutdown()
    thread.join()
    server.server_close()


@newest_only
def test_plain_http_without_a_signature_is_warned_about(device: Device, plain: Callable[[], str]) -> None:
    done = device.ok("install", plain())
    one_sentence(done, 0, "plain http", "ArtifactVerifyKey")
    assert not re.search("secret", done.out + done.err)


@newest_only
def test_a_full_disk_is_found_before_the_download(device: Device, server: DevServer, link: str) -> None:
    patch_python(
        device,
        "import os\n"
        "statvfs = os.statvfs\n"
        "def little(path):\n"
        "    found = list(statvfs(path))\n"
        "    found[3] = found[4] = 2_000_000 // found[1]\n"
        "    return os.statvfs_result(found)\n"
        "os.statvfs = little\n",
    )
    one_sentence(device.run("install", link), 73, "Not enough space")
    assert no_file_left(device)
