"""A Mender server in one process, for a developer's desk and for the tests; the client never imports it."""

from mender_oneshot.devserver.faults import Fault
from mender_oneshot.devserver.record import Seen
from mender_oneshot.devserver.server import DevServer

__all__ = ["DevServer", "Fault", "Seen"]
