"""Through a proxy, with the same trust and the same silence about secrets."""

import base64
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.certificates import issue
from helpers.device import Device, patch_python
from helpers.proxy import Proxy

from mender_oneshot.devserver import DevServer
from mender_oneshot.proxy import choose, is_direct


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


def test_the_requests_of_an_invocation_share_one_tunnel(
    accepted: Device, server: DevServer, proxy: Proxy
) -> None:
    accepted.environment["https_proxy"] = f"http://127.0.0.1:{proxy.port}"
    accepted.make_due("check-update", "send-inventory")
    asked = len(server.requests)
    accepted.ok("run", "--all")
    assert len(server.requests) - asked > 1
    assert len(proxy.heads) == 1


@pytest.mark.parametrize(
    "no_proxy", ["127.0.0.1", "example.com,127.0.0.1", "example.com 127.0.0.1", "*", "127.0.0.0/8"]
)
def test_no_proxy_by_blanks_or_commas(
    accepted: Device, server: DevServer, proxy: Proxy, no_proxy: str
) -> None:
    accepted.environment |= {"https_proxy": f"http://127.0.0.1:{proxy.port}", "no_proxy": no_proxy}
    accepted.ok("check-update")
    assert not proxy.heads


REFUSALS = {
    "407": (
        b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
        "the proxy rejected the connection (407)",
    ),
    "403": (
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        "the proxy rejected the connection (403)",
    ),
    "502": (
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
        "the proxy rejected the connection (502)",
    ),
    "garbage": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "the configured proxy is not an HTTP proxy"),
    "silence and an end": (b"", "the proxy failed to open a tunnel"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_proxy_that_refuses_the_connection_ends_with_75_without_its_password(
    device: Device, name: str
) -> None:
    answer, words = REFUSALS[name]
    with Proxy(answer) as proxy:
        device.environment["https_proxy"] = f"http://us%23er:p%40ss@127.0.0.1:{proxy.port}"
        done = device.run("auth")
    assert done.code == 75
    assert words in done.err
    assert "p@ss" not in done.err
    assert "p%40ss" not in done.err
    assert len(done.err.splitlines()) == 1


def test_a_proxy_that_cannot_be_reached_is_named_without_its_password(device: Device) -> None:
    device.environment["https_proxy"] = "http://user:secret@127.0.0.1:1"
    done = device.run("auth")
    assert done.code == 75
    assert "the proxy cannot be reached: Connection refused" in done.err
    assert "secret" not in done.err


PROXY = issue("proxy", names=("127.0.0.1",))


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[Proxy]:
    """A proxy that is spoken to in TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (tmp_path / "proxy.pem").write_bytes(PROXY.key_pem + PROXY.pem)
    context.load_cert_chain(tmp_path / "proxy.pem")
    with Proxy(context=context) as running:
        yield running


def test_a_proxy_spoken_to_in_tls(accepted: Device, server: DevServer, secure: Proxy, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(Path(server.ca).read_bytes() + PROXY.pem)
    accepted.environment["https_proxy"] = f"https://user:secret@127.0.0.1:{secure.port}"
    accepted.configure(ServerCertificate=str(both))
    accepted.ok("check-update")
    assert secure.heads
    assert not [head for head in secure.heads if "Bearer" in head]


def test_a_proxy_with_an_untrusted_certificate_gets_no_login(
    accepted: Device, server: DevServer, secure: Proxy
) -> None:
    accepted.environment["https_proxy"] = f"https://user:secret@127.0.0.1:{secure.port}"
    done = accepted.run("check-update")
    assert done.code == 69, done
    assert "it is self-signed" in done.err
    assert "secret" not in done.err
    assert not secure.heads


def test_only_an_https_proxy_needs_urllib3(
    accepted: Device,
    server: DevServer,
    proxy: Proxy,
    secure: Proxy,
    tmp_path: Path,
) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(Path(server.ca).read_bytes() + PROXY.pem)
    accepted.configure(ServerCertificate=str(both))
    patch_python(accepted, "import sys; sys.modules['urllib3'] = None")
    accepted.environment["https_proxy"] = f"http://127.0.0.1:{proxy.port}"
    accepted.ok("check-update")
    accepted.environment["https_proxy"] = f"https://127.0.0.1:{secure.port}"
    done = accepted.run("check-update")
    assert (done.code, done.err) == (78, "The library urllib3 is missing; install python3-urllib3.\n")


def test_a_plain_proxy_with_an_https_address_is_named(device: Device, proxy: Proxy) -> None:
    device.environment["https_proxy"] = f"https://user:secret@127.0.0.1:{proxy.port}"
    done = device.run("auth")
    assert done.code == 75
    assert "the proxy cannot be reached: it does not use TLS on this port" in done.err
    assert "secret" not in done.err


LOGINS = [
    ("user:p%40ss", "user:p@ss"),
    ("user:p@ss", "user:p@ss"),
    ("user:p/a#s?s", "user:p/a#s?s"),
    ("us%3Aer:", "us:er:"),
    ("user:100%", "user:100%"),
    ("user:p://x", "user:p://x"),
    ("b%C3%A4r:\u20ac", "b\u00e4r:\u20ac"),
]


@pytest.mark.parametrize(("written", "meant"), LOGINS)
def test_logins_of_all_sorts(device: Device, proxy: Proxy, written: str, meant: str) -> None:
    device.environment["https_proxy"] = f"http://{written}@127.0.0.1:{proxy.port}"
    assert device.run("auth").code == 77
    login = base64.b64encode(meant.encode()).decode()
    assert all(f"basic {login}".lower() in head.lower() for head in proxy.heads)


# host, port, no_proxy, whether it is bypassed
DIRECT = [
    ("board.example.com", 443, "", False),
    ("board.example.com", 443, "*", True),
    ("board.example.com", 443, "a,*,b", True),
    ("board.example.com", 443, "example.com", True),
    ("board.example.com", 443, ".example.com", True),
    ("board.example.com", 443, "*.example.com", True),
    ("board.example.com", 443, "EXAMPLE.com", True),
    ("Board.Example.COM", 443, "example.com", True),
    ("board.example.com.", 443, "example.com", True),
    ("board.example.com", 443, "example.com.", True),
    ("board.example.com", 443, ".example.com.", True),
    ("board.example.com", 443, "other.org example.com", True),
    ("board.example.com", 443, "  other.org ,\texample.com ,", True),
    ("board.example.com", 443, "example.com:443", True),
    ("board.example.com", 8443, "example.com:443", False),
    ("example.com", 443, "example.com", True),
    ("example.com", 443, ".example.com", True),
    ("badexample.com", 443, "example.com", False),
    ("example.com", 443, "board.example.com", False),
    ("example.com", 443, "com", True),
    ("example.com", 443, ".", False),
    ("example.com", 443, "*.", False),
    ("example.com", 443, ",, ,", False),
    ("example.com", 443, "10.0.0.0/8", False),
    ("127.0.0.1", 443, "127.0.0.1", True),
    ("127.0.0.1", 443, "127.0.0.1:443", True),
    ("127.0.0.1", 443, "127.0.0.1:80", False),
    ("127.0.0.1", 443, "127.0.0.0/8", True),
    ("127.0.0.1", 443, "127.0.0.9/8", True),
    ("127.0.0.1", 443, "127.0.0.1/32", True),
    ("127.0.0.1", 443, "0.0.0.0/0", True),
    ("127.0.0.1", 443, "10.0.0.0/8", False),
    ("127.0.0.1", 443, "127.0.0.0/33", False),
    ("127.0.0.1", 443, "127.0.0.0/", False),
    ("127.0.0.1", 443, "127.0.0", False),
    ("127.0.0.1", 443, "0.0.1", False),
    ("127.0.0.1", 443, "::/0", False),
    ("127.0.0.1", 443, "localhost", False),
    ("localhost", 443, "localhost", True),
    ("localhost", 443, "127.0.0.0/8", False),
    ("::1", 443, "::1", True),
    ("::1", 443, "[::1]", True),
    ("::1", 443, "[::1]:443", True),
    ("::1", 443, "[::1]:80", False),
    ("::1", 443, "0:0:0:0:0:0:0:1", True),
    ("::1", 443, "::/0", True),
    ("fd00::7", 443, "fd00::/8", True),
    ("fd00::7", 443, "[fd00::]/8", True),
    ("fe80::1%25eth0", 443, "fe80::/10", True),
    ("fe80::1%eth0", 443, "fe80::1", True),
    ("2001:db8::1", 443, "fd00::/8", False),
    ("2001:db8::1", 443, "10.0.0.0/8", False),
]


@pytest.mark.parametrize(("host", "port", "listed", "direct"), DIRECT)
def test_no_proxy(host: str, port: int, listed: str, direct: bool) -> None:
    assert is_direct(host, port, listed) == direct


CHOICES: list[tuple[str, dict[str, str], str]] = [
    ("https://h", {"https_proxy": "a", "HTTPS_PROXY": "b"}, "a"),
    ("https://h", {"HTTPS_PROXY": "b"}, "b"),
    ("https://h", {"http_proxy": "a"}, ""),
    ("http://h", {"https_proxy": "a"}, ""),
    ("http://h", {"HTTP_PROXY": "a"}, "a"),
    ("http://h", {"HTTP_PROXY": "a", "REQUEST_METHOD": "GET"}, ""),
    ("http://h", {"http_proxy": "a", "REQUEST_METHOD": "GET"}, "a"),
    ("https://h", {"ALL_PROXY": "a"}, "a"),
    ("https://h", {"all_proxy": "a", "https_proxy": "b"}, "b"),
    ("HTTPS://h", {"https_proxy": "a"}, "a"),
    ("https://h", {"https_proxy": ""}, ""),
    ("https://h", {"https_proxy": "", "HTTPS_PROXY": "b"}, ""),
    ("https://h", {"https_proxy": " a "}, "a"),
    ("https://h", {"https_proxy": "a", "NO_PROXY": "h"}, ""),
    ("https://h", {"https_proxy": "a", "no_proxy": "", "NO_PROXY": "h"}, "a"),
    ("https://[::1]:8", {"https_proxy": "a", "no_proxy": "[::1]:8"}, ""),
    ("https://h", {"socks_proxy": "a"}, ""),
]


@pytest.mark.parametrize(("url", "environment", "expected"), CHOICES)
def test_the_proxy_is_chosen_from_the_environment_by_scheme_and_no_proxy(
    url: str, environment: dict[str, str], expected: str
) -> None:
    assert choose(url, environment) == expected


@pytest.mark.parametrize("address", ["http://", "::::", "socks5://127.0.0.1:1", "http://[bad"])
def test_a_proxy_that_is_no_url_is_one_sentence(device: Device, address: str) -> None:
    device.environment["https_proxy"] = address
    done = device.run("auth")
    assert done.code in (75, 78)
    assert len(done.err.splitlines()) == 1
