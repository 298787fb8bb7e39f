"""Faults and the request log over HTTP, from this machine only, for tests of the server as a program."""

import ipaddress
from typing import Any

from . import gateway
from .faults import Faults
from .request_log import RequestLog, Seen
from .routing import Request, Response, Route, json_response
from .validation import HTTPError

_SECRET_PARAMETERS = ("X-Amz-Signature", "x-men-signature")
_SECRET_HEADERS = ("authorization", "sec-websocket-protocol")


class ControlApi:
    """The handlers under /devserver/; these requests are not logged, and faults do not affect them."""

    def __init__(self, faults: Faults, log: RequestLog) -> None:
        self._faults = faults
        self._log = log

    @property
    def routes(self) -> list[Route]:
        """The endpoints."""
        return [
            Route("POST", f"{gateway.CONTROL}faults", self.add),
            Route("DELETE", f"{gateway.CONTROL}faults", self.clear),
            Route("POST", f"{gateway.CONTROL}faults/release", self.release),
            Route("GET", f"{gateway.CONTROL}requests", self.requests),
        ]

    def gate(self, request: Request) -> Response | None:
        """Raise HTTPError 403 unless the request comes from this machine.

        A connection from an address to itself does, such as to the address that a board uses.
        """
        if request.client == request.own_address:
            return None
        address = ipaddress.ip_address(request.client.partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        if not (mapped or address).is_loopback:
            raise HTTPError(403, "only from the machine of the server")
        return None

    def add(self, request: Request) -> Response:
        """Add a fault; raise HTTPError 400 if a member of the body is not a field of `Fault`."""
        request.check_json_type()
        body = request.object("Fault")
        try:
            self._faults.add(**body)
        except TypeError as error:
            raise HTTPError(400, f"not a fault: {error}") from None
        return Response(204)

    def clear(self, request: Request) -> Response:
        """Remove all faults."""
        self._faults.clear()
        return Response(204)

    def release(self, request: Request) -> Response:
        """Resume stalled responses."""
        self._faults.release()
        return Response(204)

    def requests(self, request: Request) -> Response:
        """Return the request log, without the secrets that would let a reader act as the device."""
        return json_response(200, [_to_json(seen) for seen in self._log.all()])


def _to_json(seen: Seen) -> dict[str, Any]:
    headers = {k: "***" if k.lower() in _SECRET_HEADERS else v for k, v in seen.headers.items()}
    query = {k: "***" if k in _SECRET_PARAMETERS else v for k, v in seen.query.items()}
    return {
        "method": seen.method,
        "path": seen.path,
        "query": query,
        "headers": headers,
        "body": seen.body.decode(errors="replace"),
        "status": seen.status,
        "sent": seen.sent,
        "origin": seen.origin,
        "at": seen.at,
    }
