"""Hosts with several addresses, some of which are dead: they cost a moment, not the time of the others."""

import contextlib
import socket
import time
from collections.abc import Iterator, Sequence

import pytest
from helpers.device import Device, patch_python
from helpers.terminal_peer import silent_address

from mender_oneshot import reach
from mender_oneshot.devserver import DevServer

V4, V6 = socket.AF_INET, socket.AF_INET6


@contextlib.contextmanager
def listening() -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()


def connects(targets: Sequence[reach.Target], to: tuple[str, int]) -> None:
    began = time.monotonic()
    with reach.connect(targets, 20) as stream:
        assert stream.getpeername() == to
        assert stream.gettimeout() is None
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("dead", [1, 2, 5])
def test_silent_addresses_before_a_good_one(dead: int) -> None:
    with silent_address() as silent, listening() as good:
        connects([(V4, silent)] * dead + [(V4, good)], good)


def test_addresses_that_refuse_before_a_good_one() -> None:
    with listening() as good:
        connects([(V6, ("::1", 1)), (V4, ("127.0.0.1", 1)), (V4, good)], good)


def test_a_family_that_the_system_has_not() -> None:
    with listening() as good:
        connects([(999, ("::1", 1)), (V4, good)], good)


def test_the_time_limit_is_for_all() -> None:
    with silent_address() as silent:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            reach.connect([(V4, silent)] * 3, 0.7)
        assert time.monotonic() - began < 10


def test_what_refuses_is_said() -> None:
    with pytest.raises(ConnectionRefusedError):
        reach.connect([(V4, ("127.0.0.1", 1)), (V4, ("127.0.0.1", 2))], 20)
    with pytest.raises(socket.gaierror):
        reach.connect([], 20)


def test_families_take_turns() -> None:
    targets = [(V6, 1), (V6, 2), (V6, 3), (V4, 4), (V4, 5)]
    assert reach.alternate(targets) == [(V6, 1), (V4, 4), (V6, 2), (V4, 5), (V6, 3)]
    assert reach.alternate([(V4, 4), (V6, 1), (V6, 2)]) == [(V4, 4), (V6, 1), (V6, 2)]
    assert reach.alternate([]) == []


RESOLVER = """
import socket
real = socket.getaddrinfo
def look_up(host, port, *rest, **options):
    found = real("127.0.0.1", port, *rest, **options)
    dead = found[0][:4] + ({silent!r},)
    return [dead, dead, *found]
socket.getaddrinfo = look_up
"""


def test_a_dead_address_costs_a_step_no_time(device: Device, server: DevServer) -> None:
    device.configure(ServerURL=server.url.replace("127.0.0.1", "localhost"))
    with silent_address() as silent:
        patch_python(device, RESOLVER.format(silent=silent))
        began = time.monotonic()
        done = device.run("--max-runtime", "50", "auth")
        assert done.code == 77, done
        assert time.monotonic() - began < 28
