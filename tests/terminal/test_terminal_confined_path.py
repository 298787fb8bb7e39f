"""Paths are confined to a directory: a table of escapes, and generated paths."""

import contextlib
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.confinement import ESCAPES, MISSING, NOBODY, root_only
from hypothesis import given
from hypothesis import strategies as st

from mender_oneshot.terminal.confined_path import OutsideRoot, Place, Replaceable, Root, Symlink, find, hold


@contextlib.contextmanager
def held(path: Path | str) -> Iterator[Root]:
    """Hold a directory until the end of the block."""
    root = hold(str(path))
    try:
        yield root
    finally:
        os.close(root.descriptor)


@pytest.fixture
def root(tree: Path) -> Iterator[Root]:
    """The jail, held."""
    with held(tree) as made:
        yield made


def content(place: Place) -> str:
    """Return the text of a file, and close its directory."""
    with place, os.fdopen(place.open(os.O_RDONLY)) as file:
        return file.read()


@pytest.mark.parametrize("path", ESCAPES)
def test_a_path_that_leads_out_of_the_root_is_rejected(tree: Path, root: Root, path: str) -> None:
    expected = FileNotFoundError if path == MISSING else OutsideRoot
    with pytest.raises(expected):
        find(root, path.format(jail=tree, parent=tree.parent), follow=True)


@pytest.mark.parametrize("path", ESCAPES)
@pytest.mark.parametrize(("follow", "last"), [(True, False), (False, True), (False, False)])
def test_a_link_that_is_not_followed_leads_nowhere(
    tree: Path, root: Root, path: str, follow: bool, last: bool
) -> None:
    expected = FileNotFoundError if path == MISSING else (OutsideRoot, Symlink)
    try:
        place = find(root, path.format(jail=tree, parent=tree.parent), follow=follow, last=last)
    except expected:
        return
    # The link itself is found, but it cannot be opened.
    assert not last
    with place:
        assert Path(f"/proc/self/fd/{place.directory}").resolve().is_relative_to(tree)
        assert stat.S_ISLNK(place.stat().st_mode)
        with pytest.raises(OSError, match="symbolic links"):
            place.open(os.O_RDONLY)


@pytest.mark.parametrize(
    "path",
    ["file", "a/file", "a/../file", "a/b/../../a/file", "./file", "//file", "a/./b/.././file"],
)
@pytest.mark.parametrize("follow", [True, False])
def test_a_path_that_stays_inside_is_found(tree: Path, root: Root, path: str, follow: bool) -> None:
    assert content(find(root, f"{tree}/{path}", follow=follow)) == "inside"


@pytest.mark.parametrize("path", ["to-file", "to-a/file", "a/up/file", "a/up-file", "absolute", "self/file"])
def test_a_link_that_stays_inside_is_followed_only_if_allowed(tree: Path, root: Root, path: str) -> None:
    assert content(find(root, f"{tree}/{path}", follow=True)) == "inside"
    with pytest.raises(Symlink):
        find(root, f"{tree}/{path}", follow=False)


def test_an_absolute_link_in_a_subdirectory_is_resolved_from_the_root(tree: Path, root: Root) -> None:
    (tree / "file").write_text("the target")
    (tree / "a" / "file").write_text("another file of that name")
    (tree / "a" / "absolute").symlink_to(tree / "file")
    assert content(find(root, f"{tree}/a/absolute", follow=True)) == "the target"


@pytest.mark.parametrize("path", ["circle", "one", "one/x", "circle/x"])
def test_a_loop_of_links_is_an_error(tree: Path, root: Root, path: str) -> None:
    with pytest.raises(OSError, match="symbolic links"):
        find(root, f"{tree}/{path}", follow=True)


def test_a_missing_file_has_a_place_and_a_missing_directory_is_an_error(tree: Path, root: Root) -> None:
    for path in ("new", "a/new", "to-a/new", "dangling"):
        with find(root, f"{tree}/{path}", follow=True) as place:
            assert os.path.samefile(f"/proc/self/fd/{place.directory}", (tree / path).parent)
            with pytest.raises(FileNotFoundError):
                place.stat()
    with pytest.raises(FileNotFoundError):
        find(root, f"{tree}/nothing/new", follow=True)
    with pytest.raises(NotADirectoryError):
        find(root, f"{tree}/file/new", follow=True)


def test_every_path_is_inside_the_root_directory(tree: Path) -> None:
    with held("/") as root:
        assert content(find(root, f"{tree}/out", follow=True)) == "outside"
        assert content(find(root, f"/../../{tree}/a/../file", follow=False)) == "inside"


names = st.lists(
    st.sampled_from(["..", "a", "b", "up", "to-a", "out-directory", "self", "", "."]), max_size=8
)


@given(names, st.booleans())
def test_any_path_stays_inside_or_is_rejected(
    tmp_path_factory: pytest.TempPathFactory, path: list[str], follow: bool
) -> None:
    base = tmp_path_factory.getbasetemp() / "walks"
    jail = base / "jail"
    if not base.exists():
        (jail / "a" / "b").mkdir(parents=True)
        (jail / "a" / "up").symlink_to("..")
        (jail / "to-a").symlink_to("a")
        (jail / "self").symlink_to(".")
        (jail / "out-directory").symlink_to("..")
    try:
        with held(jail) as root, find(root, "/".join([str(jail), *path]), follow=follow) as place:
            assert Path(f"/proc/self/fd/{place.directory}").resolve().is_relative_to(jail)
    except (OutsideRoot, Symlink, FileNotFoundError):
        pass


def test_swapping_directories_and_links_does_not_lead_outside(tree: Path, root: Root) -> None:
    """An open directory keeps its identity: the file inside is found, or there is an error."""
    (tree.parent / "file").write_text("outside")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(tree / "a", tree / "a-away")
            os.symlink("..", tree / "a")
            os.unlink(tree / "a")
            os.rename(tree / "a-away", tree / "a")

    swapper = threading.Thread(target=swap)
    swapper.start()
    outcomes: set[str] = set()
    attempt = 0
    try:
        # On a busy machine the first attempts may all fall into one phase of the swap.
        while attempt < 3000 or "inside" not in outcomes:
            attempt += 1
            try:
                outcomes.add(content(find(root, f"{tree}/a/file", follow=bool(attempt % 2))))
            except (OutsideRoot, Symlink, OSError) as error:
                outcomes.add(type(error).__name__)
    finally:
        stop.set()
        swapper.join()
    assert "outside" not in outcomes


def test_rejected_paths_leave_no_descriptor_open(tree: Path, root: Root) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for path in ESCAPES:
        try:
            find(root, path.format(jail=tree, parent=tree.parent), follow=True).close()
        except (OutsideRoot, Symlink, OSError):
            continue
    assert len(os.listdir("/proc/self/fd")) == before


REPLACEABLE: dict[str, tuple[str, dict[str, tuple[int, int]], str]] = {
    # name: path in the test's directory, owners and modes of some components, error message
    "the directory above belongs to the user": (
        "a/jail",
        {"a": (NOBODY, 0o755)},
        "the owner of .*/a, nobody, can replace .*/a/jail",
    ),
    "a directory further above belongs to the user": (
        "a/b/jail",
        {"a": (NOBODY, 0o755)},
        "can replace .*/a/b",
    ),
    "the directory above belongs to a user without a name": (
        "a/jail",
        {"a": (54321, 0o755)},
        "the owner of .*/a, user 54321",
    ),
    "the directory above is writable for all": (
        "a/jail",
        {"a": (0, 0o777)},
        "users other than root can write to .*/a",
    ),
    "the directory above is writable for a group": (
        "a/jail",
        {"a": (0, 0o775)},
        "users other than root can write to .*/a",
    ),
    "it belongs to the user, in a directory with the sticky bit": (
        "a/jail",
        {"a": (0, 0o1777), "a/jail": (NOBODY, 0o755)},
        "its owner, nobody, can replace .*/a/jail",
    ),
    "it is a link": ("link", {}, "link is a symbolic link; name the directory"),
    "the directory above is a link": ("link/jail", {}, "link is a symbolic link; name the directory"),
    "it is a dangling link": ("dangling", {}, "dangling is a symbolic link"),
    "a path with ..": ("a/../a/jail", {}, 'there is ".." in it'),
}


@root_only
@pytest.mark.parametrize("name", REPLACEABLE)
def test_a_root_that_others_can_replace_is_rejected(tmp_path: Path, name: str) -> None:
    (tmp_path / "a" / "b" / "jail").mkdir(parents=True)
    (tmp_path / "a" / "jail").mkdir()
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "dangling").symlink_to("nothing")
    path, parts, message = REPLACEABLE[name]
    for part, (owner, mode) in parts.items():
        os.chown(tmp_path / part, owner, -1)
        os.chmod(tmp_path / part, mode)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(Replaceable, match=message):
        hold(f"{tmp_path}/{path}")
    assert len(os.listdir("/proc/self/fd")) == before


@root_only
@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("a/jail", {}),
        ("a/jail", {"a/jail": (NOBODY, 0o777)}),
        ("a/jail", {"a": (0, 0o1777)}),
        ("a//./jail/", {"a/jail": (NOBODY, 0o755)}),
    ],
)
def test_a_root_that_only_root_can_replace_is_opened(
    tmp_path: Path, path: str, parts: dict[str, tuple[int, int]]
) -> None:
    (tmp_path / "a" / "jail").mkdir(parents=True)
    for part, (owner, mode) in parts.items():
        os.chown(tmp_path / part, owner, -1)
        os.chmod(tmp_path / part, mode)
    with held(f"{tmp_path}/{path}") as root:
        assert os.path.samestat(os.fstat(root.descriptor), os.stat(tmp_path / "a" / "jail"))


def test_a_root_that_is_missing_or_a_file_is_an_error(tree: Path) -> None:
    with pytest.raises(FileNotFoundError):
        hold(f"{tree}/nothing")
    with pytest.raises(NotADirectoryError):
        hold(f"{tree}/file")


def test_an_open_root_keeps_its_directory_when_another_takes_its_path(tree: Path, root: Root) -> None:
    os.rename(tree, tree.parent / "moved")
    tree.symlink_to(tree.parent / "jailbreak")
    assert content(find(root, f"{tree}/file", follow=True)) == "inside"
