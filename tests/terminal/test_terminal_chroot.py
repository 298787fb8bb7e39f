"""The terminal confines file transfers to its Chroot, and shells to what their user may access."""

import os
from pathlib import Path

import pytest
from helpers.confinement import NOBODY, root_only
from helpers.device import patch_python
from helpers.terminal_files import TransferFailed, fetch, limited, look, put
from helpers.terminal_peer import Served


def limits(served: Served, chroot: Path | str) -> None:
    files = {"Chroot": str(chroot), "AllowOverwrite": True}
    served.configure(RemoteTerminal=True, Limits={"Enabled": True, "FileTransfer": files})


@root_only
def test_a_chroot_that_its_user_can_replace_is_rejected(either: Served, tmp_path: Path) -> None:
    chroot = tmp_path / "home" / "files"
    chroot.mkdir(parents=True)
    os.chown(tmp_path / "home", NOBODY, -1)
    limits(either, chroot)
    done = either.device.run("terminal", "--wait", "1")
    assert done.code == 78
    assert f"the owner of {tmp_path}/home, nobody, can replace {chroot}" in done.err


@pytest.mark.parametrize(
    ("make", "message"), [(False, "cannot be opened (No such file"), (True, "symbolic link")]
)
def test_a_chroot_that_is_missing_or_a_link_is_a_configuration_error(
    either: Served, tmp_path: Path, make: bool, message: str
) -> None:
    if make:
        (tmp_path / "chroot").symlink_to(tmp_path)
    limits(either, tmp_path / "chroot")
    done = either.device.run("terminal", "--wait", "1")
    assert (done.code, message in done.err) == (78, True), done


def test_a_missing_chroot_is_no_error_if_file_transfers_are_disabled(terminal: Served) -> None:
    files = {"Chroot": "/nowhere"}
    terminal.configure(
        RemoteTerminal=True,
        FileTransfer={"Disable": True},
        Limits={"Enabled": True, "FileTransfer": files},
    )
    with terminal.connect() as line:
        line.shell()


@pytest.mark.parametrize("follow", [False, True])
def test_a_link_that_replaces_the_chroot_is_not_followed(
    terminal: Served, tmp_path: Path, follow: bool
) -> None:
    chroot, outside = tmp_path / "chroot", tmp_path / "outside"
    for directory in (chroot, outside):
        directory.mkdir()
        (directory / "file").write_text(directory.name)
    with limited(terminal, Chroot=str(chroot), FollowSymLinks=follow, AllowOverwrite=True) as line:
        assert fetch(line, chroot / "file") == b"chroot"
        chroot.rename(tmp_path / "away")
        chroot.symlink_to(outside)
        assert fetch(line, chroot / "file") == b"chroot"
        put(line, chroot / "file", b"written")
    assert (outside / "file").read_text() == "outside"
    assert (tmp_path / "away" / "file").read_text() == "written"


def test_a_file_with_hard_links_is_not_downloaded_from_a_chroot(terminal: Served, tmp_path: Path) -> None:
    chroot = tmp_path / "chroot"
    chroot.mkdir()
    (tmp_path / "secret").write_text("outside")
    os.link(tmp_path / "secret", chroot / "link")
    with limited(terminal, Chroot=str(chroot), AllowOverwrite=True) as line:
        for attempt in (look, fetch):
            with pytest.raises(TransferFailed, match="several names"):
                attempt(line, chroot / "link")
        put(line, chroot / "link", b"new")
        assert fetch(line, chroot / "link") == b"new"
    assert (tmp_path / "secret").read_text() == "outside"


def test_a_file_with_hard_links_is_downloaded_without_a_chroot(terminal: Served, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    os.link(tmp_path / "file", tmp_path / "link")
    with limited(terminal) as line:
        assert fetch(line, tmp_path / "link") == b"content"


HOME = """
import pwd
def at_home(find):
    return lambda *who: pwd.struct_passwd(
        [*find(*who)[:5], {home!r}, *find(*who)[6:]]
    )
pwd.getpwnam = at_home(pwd.getpwnam)
"""


@root_only
def test_a_shell_does_not_start_in_a_home_that_only_root_can_enter(terminal: Served, tmp_path: Path) -> None:
    """The path of the home may lead through directories that the user must not enter."""
    closed = tmp_path / "closed"
    (closed / "open").mkdir(parents=True)
    (closed / "open" / "file").write_text("secret")
    closed.chmod(0o700)
    patch_python(terminal.device, HOME.format(home=str(closed / "open")))
    terminal.configure(RemoteTerminal=True, User="nobody")
    with terminal.connect() as line:
        line.shell()
        line.type("echo begin; cat file; pwd; echo en''d\n")
        shown = line.see(b"end")
    assert b"secret" not in shown
    assert b"\r\n/\r\n" in shown
