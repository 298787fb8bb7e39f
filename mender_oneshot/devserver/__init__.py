"""A Mender server in one process, for development and for the tests; the client never imports it."""

from .faults import Fault
from .request_log import Seen
from .server import DevServer

__all__ = ["DevServer", "Fault", "Seen"]
