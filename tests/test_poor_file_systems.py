"""File systems that cannot do all that ext4 can: what they lack costs no more than it has to."""

import errno
from collections.abc import Callable

import pytest
from helpers.device import Device, newest_only, patched_python
from helpers.no_sync import NO_SYNC

from mender_oneshot.devserver import DevServer

# The call always ends with an error.
NO_CALL = """
import fcntl, os
def patched(*words):
    raise OSError({error}, os.strerror({error}))
{call} = patched
"""

# A file system that counts neither blocks nor inodes, as ramfs and some shares.
NO_COUNT = """
import os
os.statvfs = lambda path: os.statvfs_result((4096, 4096, 0, 0, 0, 0, 0, 0, 0, 255))
"""

CANNOT = [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.ENOTTY, errno.EISDIR, 524]
FAILED = [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ESTALE]


@pytest.fixture
def ready(device: Device, server: DevServer, release: Callable[..., str]) -> Device:
    """A device that needs everything there is for its first update: a key, a token, an artifact."""
    server.accept_all = True
    device.sub_updater()
    return device


def name(error: int) -> str:
    return errno.errorcode.get(error, str(error))


@newest_only
@pytest.mark.parametrize("error", CANNOT, ids=name)
def test_a_directory_that_cannot_be_synced_costs_nothing(
    ready: Device, release: Callable[..., str], error: int
) -> None:
    with patched_python(ready, NO_SYNC.format(error=error)):
        ready.ok("auth")
        release()
        assert "Handed release-2 to the sub-updater" in ready.ok("run", "--all").out
        ready.ok("report", "--success")


@newest_only
@pytest.mark.parametrize("error", FAILED, ids=name)
def test_a_directory_whose_sync_fails_is_an_error(ready: Device, error: int) -> None:
    with patched_python(ready, NO_SYNC.format(error=error)):
        done = ready.run("auth")
    assert done.code in (73, 74)
    assert "Cannot write " in done.err


@newest_only
@pytest.mark.parametrize("error", [errno.EPERM, errno.EOPNOTSUPP, errno.EINVAL], ids=name)
def test_modes_that_cannot_be_set_cost_nothing(
    ready: Device, release: Callable[..., str], error: int
) -> None:
    with patched_python(ready, NO_CALL.format(call="os.fchmod", error=error)):
        ready.ok("auth")
        release()
        assert "Handed release-2 to the sub-updater" in ready.ok("run", "--all").out


@newest_only
@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL], ids=name)
def test_without_locks_nothing_is_done_and_the_reason_is_told(
    ready: Device, server: DevServer, error: int
) -> None:
    with patched_python(ready, NO_CALL.format(call="fcntl.flock", error=error)):
        done = ready.run("auth")
    assert done.code == 74
    assert "mender-oneshot.lock: " in done.err
    assert done.err.endswith("; put the data directory on another one.\n")
    assert server.devices == []


@newest_only
def test_a_file_system_that_does_not_count_its_blocks_is_not_full(
    ready: Device, release: Callable[..., str]
) -> None:
    with patched_python(ready, NO_COUNT):
        ready.ok("auth")
        release()
        assert "Handed release-2 to the sub-updater" in ready.ok("run", "--all").out
        assert "data directory" in ready.run("doctor").out
