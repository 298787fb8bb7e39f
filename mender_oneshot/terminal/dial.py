"""Open the stream that the WebSocket uses: DNS, TCP, proxy and TLS, all within one time limit.

SIGTERM and the time limit of the process interrupt every phase, whatever the peer does.
"""

import socket
import time

from .. import errors, network, proxy, reach
from ..settings import Settings
from ..url import Origin, host, origin
from .resolver import Address, Lookup, parse_address
from .signals import Signals, Stopped

HEAD_LIMIT = 16384
"""Bytes of the response heads that a proxy or a server may send, interim responses included."""


def open_stream(settings: Settings, url: str, end: float, signals: Signals) -> socket.socket:
    """Connect to a server before a time of `time.monotonic`, possibly through a proxy, possibly with TLS.

    Raises `OSError` or an `errors.Error`, and `Stopped` if a signal interrupts it.
    """
    where = origin(url)
    if where is None:
        raise errors.SettingsError(f"The address of {host(url)} is not a URL; correct ServerURL.")
    named = proxy.proxy_for(url)
    through = proxy.read_proxy(named) if named else None
    stream = _reach(where, through, end, signals)
    if where.scheme != "https":
        return stream
    try:
        # Not earlier: the context costs memory, and SkipVerify prints a warning.
        context = network.tls_context(settings)
    except BaseException:
        stream.close()
        raise
    try:
        return _secured(stream, context, where, end, signals)
    except network.Rejected:
        if not context.reconsider():
            raise
    return _secured(_reach(where, through, end, signals), context, where, end, signals)


def _reach(where: Origin, through: proxy.Proxy | None, end: float, signals: Signals) -> socket.socket:
    """Connect to a host, possibly through a proxy."""
    if through is None:
        stream = _connect(where, end, signals)
    else:
        stream = _connect_through(through, where, end, signals)
    try:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        stream.close()
        raise
    return stream


def _secured(
    stream: socket.socket, context: network.Context, where: Origin, end: float, signals: Signals
) -> socket.socket:
    """Start TLS, and check the certificate; closes the stream if that fails."""
    try:
        stream.settimeout(remaining(end))
        secured = network.start_tls(context, stream, where.host)
        stream = secured
        with signals.interrupting():
            secured.do_handshake()
    except BaseException:
        stream.close()
        raise
    return secured


def remaining(end: float) -> float:
    """Return the seconds until a time of `time.monotonic`; raises `TimeoutError` if it has passed."""
    seconds = end - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def read_head(stream: socket.socket, end: float) -> bytes:
    """Read the head of a final HTTP response, and what arrives with it; interim responses are dropped.

    Returns early, with an incomplete head, if the peer closes, sends more than `HEAD_LIMIT` bytes, or does
    not speak HTTP. Raises `OSError`.

    h11 would not replace this: wsproto takes an interim response of the server for a rejection, and h11 waits
    for a blank line from a peer that speaks another protocol.
    """
    data = b""
    room = HEAD_LIMIT
    while True:
        body = _after_blank_line(data)
        if body and 100 <= _status(data) < 200 and _status(data) != 101:
            data = data[body:]
        elif body or not room or not data.startswith(b"HTTP/"[: len(data)]):
            return data
        else:
            stream.settimeout(remaining(end))
            piece = stream.recv(min(4096, room))
            if not piece:
                return data
            data += piece
            room -= len(piece)


def _status(head: bytes) -> int:
    """Return the status in the first line of a head, 0 if there is none."""
    words = head.split(maxsplit=2)
    return int(words[1]) if len(words) > 1 and words[1].isdigit() and len(words[1]) == 3 else 0


def _after_blank_line(data: bytes) -> int:
    """Return the offset after the first blank line, 0 if there is none."""
    ends = [data.find(blank) + len(blank) for blank in (b"\n\r\n", b"\n\n") if blank in data]
    return min(ends, default=0)


def _connect_through(through: proxy.Proxy, where: Origin, end: float, signals: Signals) -> socket.socket:
    """Open a tunnel to a host through a proxy."""
    if through.origin.scheme != "http":
        raise errors.SettingsError(
            f"The terminal supports http:// proxies only, not {through.origin.scheme}://; "
            "correct http(s)_proxy."
        )
    stream = _connect(through.origin, end, signals)
    try:
        with signals.interrupting():
            stream.settimeout(remaining(end))
            stream.sendall(proxy.connect_request(through, where))
            _check_tunnel(read_head(stream, end))
    except BaseException:
        stream.close()
        raise
    return stream


def _check_tunnel(head: bytes) -> None:
    """Raise `network.ProxyFailed` if a proxy's response does not open the tunnel."""
    status = _status(head)
    # In TLS and HTTP the client sends first, so data after the head does not come from the server.
    if not 200 <= status < 300 or _after_blank_line(head) != len(head):
        raise network.no_tunnel(0 if 200 <= status < 300 else status)


def _connect(where: Origin, end: float, signals: Signals) -> socket.socket:
    """Connect to the first address that responds; raises `OSError`."""
    address = parse_address(where.host, where.port)
    addresses = [address] if address else _resolve(where, end, signals)
    with signals.interrupting():
        return reach.connect(addresses, remaining(end))


def _resolve(where: Origin, end: float, signals: Signals) -> list[Address]:
    answers: list[list[Address]] = []
    lookup = Lookup(signals.loop, where.host, where.port, socket.SOCK_STREAM, answers.append)
    timer = signals.loop.later(remaining(end), lookup.give_up)
    try:
        signals.loop.run(lambda: bool(answers) or signals.stopped or signals.timed_out)
    finally:
        timer.cancel()
        lookup.cancel()
    if not answers:
        raise Stopped
    return answers[0]
