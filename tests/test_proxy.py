"""Through a proxy, with the same trust and the same silence about secrets."""

import base64
import contextlib
import select
import socket
import threading
from collections.abc import Iterator

import pytest
from conftest import Device

from mender_oneshot.devserver import DevServer


class Proxy:
    """A proxy that tunnels (CONNECT) on loopback and remembers the heads of the requests it got."""

    def __init__(self, answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n") -> None:
        self.heads: list[str] = []
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._listen)]

    def __enter__(self) -> "Proxy":
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._tunnel, args=(client,)))
                self._threads[-1].start()

    def _tunnel(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(65536)
            self.heads.append(head.decode())
            client.sendall(self._answer)
            host, _, port = head.split()[1].decode().rpartition(":")
            with socket.create_connection((host, int(port))) as target:
                ways = {client: target, target: client}
                while True:
                    for source in select.select(list(ways), [], [])[0]:
                        piece = source.recv(65536)
                        if not piece:
                            return
                        ways[source].sendall(piece)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy() as running:
        yield running


@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY", "all_proxy"])
def test_through_a_proxy_with_a_login(device: Device, server: DevServer, proxy: Proxy, name: str) -> None:
    device.environment[name] = f"http://user:p%40ss@127.0.0.1:{proxy.port}"
    assert device.run("auth").code == 77
    server.accept()
    device.ok("auth")
    done = device.ok("-l", "debug", "check-update")
    login = base64.b64encode(b"user:p@ss").decode()
    assert all(head.startswith("CONNECT ") for head in proxy.heads)
    assert all(f"basic {login}".lower() in head.lower() for head in proxy.heads)
    # The token goes through the tunnel, not to the proxy; nor does the login go to the server.
    assert not [head for head in proxy.heads if "Bearer" in head]
    assert not [seen for seen in server.requests if "Proxy-Authorization" in seen.headers]
    assert "p@ss" not in done.err
    assert "p%40ss" not in done.err


@pytest.mark.parametrize("no_proxy", ["127.0.0.1", "example.com,127.0.0.1", "example.com 127.0.0.1", "*"])
def test_no_proxy_by_blanks_or_commas(
    accepted: Device, server: DevServer, proxy: Proxy, no_proxy: str
) -> None:
    accepted.environment |= {"https_proxy": f"http://127.0.0.1:{proxy.port}", "no_proxy": no_proxy}
    accepted.ok("check-update")
    assert not proxy.heads


def test_a_proxy_that_says_no(device: Device) -> None:
    with Proxy(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n") as proxy:
        device.environment["https_proxy"] = f"http://127.0.0.1:{proxy.port}"
        # urllib3 leaves the socket to the garbage collector here.
        device.environment["PYTHONWARNINGS"] = "error,ignore::ResourceWarning"
        done = device.run("auth")
    assert done.code == 75
    assert "without a login" in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize("address", ["http://", "::::", "socks5://127.0.0.1:1", "http://[bad"])
def test_a_proxy_that_is_no_url(device: Device, address: str) -> None:
    device.environment["https_proxy"] = address
    done = device.run("auth")
    assert done.code in (75, 78)
    assert len(done.err.splitlines()) == 1
