"""Faults and the record over HTTP, for tests that start the server as a program; this machine only."""

import ipaddress
from typing import Any

from .faults import Faults
from .request_log import RequestLog, Seen
from .routing import Answer, Request, Route, json_answer
from .validation import Refusal

PREFIX = "/devserver/"
_SECRET_PARAMETERS = ("X-Amz-Signature", "x-men-signature")


class ControlApi:
    """The handlers under /devserver/; these requests are neither recorded nor spoilt by faults."""

    def __init__(self, faults: Faults, record: RequestLog) -> None:
        self._faults = faults
        self._record = record

    @property
    def routes(self) -> list[Route]:
        """The endpoints."""
        return [
            Route("POST", f"{PREFIX}faults", self.add),
            Route("DELETE", f"{PREFIX}faults", self.clear),
            Route("POST", f"{PREFIX}faults/release", self.release),
            Route("GET", f"{PREFIX}requests", self.requests),
        ]

    def gate(self, request: Request) -> Answer | None:
        """Only from this machine."""
        address = ipaddress.ip_address(request.client.partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        if not (mapped or address).is_loopback:
            raise Refusal(403, "only from the loopback interface")
        return None

    def add(self, request: Request) -> Answer:
        """Add a fault; the members are the fields of `Fault`."""
        request.check_json_type()
        body = request.object("Fault")
        try:
            self._faults.add(**body)
        except TypeError as error:
            raise Refusal(400, f"not a fault: {error}") from None
        return Answer(204)

    def clear(self, request: Request) -> Answer:
        """Forget all faults."""
        self._faults.clear()
        return Answer(204)

    def release(self, request: Request) -> Answer:
        """Let stalled answers go on."""
        self._faults.release()
        return Answer(204)

    def requests(self, request: Request) -> Answer:
        """Everything recorded, without what would let a reader act as the device."""
        return json_answer(200, [_seen_json(seen) for seen in self._record.all()])


def _seen_json(seen: Seen) -> dict[str, Any]:
    headers = {k: "***" if k.lower() == "authorization" else v for k, v in seen.headers.items()}
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
