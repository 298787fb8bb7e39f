"""The stream that WebSocket runs over: name, TCP, proxy, TLS, all of it within one time limit.

Whatever the other side does meanwhile, SIGTERM and the limit of the whole run end it as well.
"""

import base64
import socket
import time
from urllib.parse import urlsplit

from .. import errors, network, proxy, reach
from ..settings import Settings
from .loop import Signals, Stopped
from .resolver import Address, Lookup, plain

HEAD_LIMIT = 16384
"""Bytes of the heads that a proxy or a server answers with, interim answers included."""


def open_stream(settings: Settings, url: str, end: float, signals: Signals) -> socket.socket:
    """Open a stream to a server until a time of `time.monotonic`: direct or through a proxy, plain or in TLS.

    Raises `OSError` or an `errors.Error`.
    """
    parts = urlsplit(url)
    secure = parts.scheme.lower() == "https"
    host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    named = proxy.proxy_for(url)
    stream = _through_proxy(named, host, port, end, signals) if named else _to(host, port, end, signals)
    try:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if secure:
            # Not before the last moment: it costs memory, and warns if SkipVerify is set.
            context = network.ForHost(network.tls_context(settings), host)
            stream.settimeout(left(end))
            secured = context.wrap_socket(stream, do_handshake_on_connect=False)
            stream = secured
            with signals.interrupting():
                secured.do_handshake()
    except BaseException:
        stream.close()
        raise
    return stream


def left(end: float) -> float:
    """Return the seconds until a time of `time.monotonic`; raises `TimeoutError` when there are none."""
    seconds = end - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def _through_proxy(named: str, host: str, port: int, end: float, signals: Signals) -> socket.socket:
    """Ask a proxy for a tunnel (CONNECT, RFC 9110 section 9.3.6)."""
    way = proxy.read_proxy(named)
    if way.scheme.lower() != "http":
        raise errors.SettingsError(
            f"The terminal goes through proxies of the kind http:// only, not {way.scheme}://; "
            "correct http(s)_proxy."
        )
    try:
        address = urlsplit(f"http://{way.address}")
        its_host, its_port = address.hostname or "", address.port or 80
    except ValueError as error:
        raise proxy.not_a_proxy() from error
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if way.login:
        lines.append("Proxy-Authorization: Basic " + base64.b64encode(way.login.encode()).decode())
    stream = _to(its_host, its_port, end, signals)
    try:
        with signals.interrupting():
            stream.settimeout(left(end))
            stream.sendall("".join(f"{line}\r\n" for line in [*lines, ""]).encode())
            _open_tunnel(stream, end)
    except BaseException:
        stream.close()
        raise
    return stream


def _open_tunnel(stream: socket.socket, end: float) -> None:
    """Read what a proxy answers; raises `OSError` if the tunnel is not open then."""
    said = read_answer(stream, end)
    status = _status(said)
    # Neither TLS nor HTTP lets the other side speak first: what follows the head is not the server's.
    if not 200 <= status < 300 or _after_blank_line(said) != len(said):
        raise OSError(f"Tunnel connection failed: {status} ")


def read_answer(stream: socket.socket, end: float) -> bytes:
    """Read the head of an answer of HTTP, and what comes with it; interim answers are left out.

    What is no such head is returned as soon as that is clear. Raises `OSError`.
    """
    said = b""
    room = HEAD_LIMIT
    while True:
        blank = _after_blank_line(said)
        if blank and 100 <= _status(said) < 200 and _status(said) != 101:
            said = said[blank:]
        elif blank or not room or not said.startswith(b"HTTP/"[: len(said)]):
            return said
        else:
            stream.settimeout(left(end))
            piece = stream.recv(min(4096, room))
            if not piece:
                return said
            said += piece
            room -= len(piece)


def _status(head: bytes) -> int:
    """Return the status in the first line of a head, 0 if there is none."""
    words = head.split(maxsplit=2)
    return int(words[1]) if len(words) > 1 and words[1].isdigit() and len(words[1]) == 3 else 0


def _after_blank_line(said: bytes) -> int:
    """Return where the first head ends, 0 if it has not come in full."""
    ends = [said.find(blank) + len(blank) for blank in (b"\n\r\n", b"\n\n") if blank in said]
    return min(ends, default=0)


def _to(host: str, port: int, end: float, signals: Signals) -> socket.socket:
    """Connect to the first address that answers; raises `OSError`."""
    address = plain(host, port)
    addresses = [address] if address else _look_up(host, port, end, signals)
    with signals.interrupting():
        return reach.connect(addresses, left(end))


def _look_up(host: str, port: int, end: float, signals: Signals) -> list[Address]:
    answers: list[list[Address]] = []
    lookup = Lookup(signals.loop, host, port, socket.SOCK_STREAM, answers.append)
    alarm = signals.loop.later(left(end), lookup.give_up)
    try:
        signals.loop.run(lambda: bool(answers) or signals.stopped or signals.time_over)
    finally:
        alarm.cancel()
        lookup.cancel()
    if not answers:
        raise Stopped
    return answers[0]
