"""No path leads out of a directory: a table of escapes, and every path hypothesis can think of."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mender_oneshot.terminal.confined_path import OutsideRoot, Place, Replaceable, Root, Symlink, find, hold


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory "jail" with files and links, and around it what must not be reached."""
    jail = tmp_path / "jail"
    (jail / "a" / "b").mkdir(parents=True)
    (jail / "file").write_text("inside")
    (jail / "a" / "file").write_text("inside")
    (tmp_path / "secret").write_text("outside")
    (tmp_path / "jailbreak").mkdir()
    (tmp_path / "jailbreak" / "file").write_text("outside")
    for name, target in {
        "to-file": "file",
        "to-a": "a",
        "a/up": "..",
        "a/up-file": "../file",
        "absolute": f"{jail}/a/file",
        "out": "../secret",
        "out-absolute": f"{tmp_path}/secret",
        "out-directory": "..",
        "root": "/",
        "etc": "/etc",
        "sibling": f"{jail}break",
        "a/deep": "../../secret",
        "twice": "to-out",
        "to-out": "a/deep",
        "back": f"../{jail.name}/file",
        "proc": "/proc/self/cwd",
        "circle": "circle",
        "one": "two",
        "two": "one",
        "dangling": "nothing",
        "self": ".",
    }.items():
        (jail / name).symlink_to(target)
    return jail


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
    with place, os.fdopen(place.open(os.O_RDONLY)) as file:
        return file.read()


ESCAPES = [
    "{jail}/../secret",
    "{jail}/a/../../secret",
    "{jail}/a/b/../../../secret",
    "{jail}/./.././secret",
    "{jail}//..//secret",
    "{jail}/nothing/../../secret",
    "{jail}/..",
    "{jail}/../jail/file",
    "{jail}break/file",
    "{jail}/../jailbreak/file",
    "{parent}/secret",
    "{parent}/jailbreak/file",
    "/etc/passwd",
    "/",
    "{parent}",
    "/{jail}/../secret",
    "{jail}/out",
    "{jail}/out-absolute",
    "{jail}/out-directory/secret",
    "{jail}/out-directory/jail/file",
    "{jail}/root/etc/passwd",
    "{jail}/etc/passwd",
    "{jail}/sibling/file",
    "{jail}/a/deep",
    "{jail}/twice",
    "{jail}/to-out",
    "{jail}/to-a/deep",
    "{jail}/to-a/up/../secret",
    "{jail}/a/up/out",
    "{jail}/back",
    "{jail}/proc",
    "{jail}/proc/secret",
    "{jail}/self/../secret",
    "{jail}/self/self/../../secret",
]


@pytest.mark.parametrize("path", ESCAPES)
@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize("last", [True, False])
def test_no_way_out(tree: Path, root: Root, path: str, follow: bool, last: bool) -> None:
    path = path.format(jail=tree, parent=tree.parent)
    try:
        with find(root, path, follow=follow, last=last) as place:
            # Only a link itself may be looked at, and it is never opened.
            assert not last or not follow
            assert Path(f"/proc/self/fd/{place.directory}").resolve().is_relative_to(tree)
            with pytest.raises(OSError, match="symbolic links"):
                place.open(os.O_RDONLY)
    except (OutsideRoot, Symlink, OSError):
        pass


@pytest.mark.parametrize(
    "path",
    ["file", "a/file", "a/../file", "a/b/../../a/file", "./file", "//file", "a/./b/.././file"],
)
@pytest.mark.parametrize("follow", [True, False])
def test_ways_that_stay_inside(tree: Path, root: Root, path: str, follow: bool) -> None:
    assert content(find(root, f"{tree}/{path}", follow=follow)) == "inside"


@pytest.mark.parametrize("path", ["to-file", "to-a/file", "a/up/file", "a/up-file", "absolute", "self/file"])
def test_links_that_stay_inside_are_followed_only_where_that_is_allowed(
    tree: Path, root: Root, path: str
) -> None:
    assert content(find(root, f"{tree}/{path}", follow=True)) == "inside"
    with pytest.raises(Symlink):
        find(root, f"{tree}/{path}", follow=False)


@pytest.mark.parametrize("path", ["circle", "one", "one/x", "circle/x"])
def test_circles_end(tree: Path, root: Root, path: str) -> None:
    with pytest.raises(OSError, match="symbolic links"):
        find(root, f"{tree}/{path}", follow=True)


def test_a_file_that_is_not_there_yet_has_a_place(tree: Path, root: Root) -> None:
    for path in ("new", "a/new", "to-a/new", "dangling"):
        with find(root, f"{tree}/{path}", follow=True) as place:
            assert os.path.samefile(f"/proc/self/fd/{place.directory}", (tree / path).parent)
            with pytest.raises(FileNotFoundError):
                place.stat()
    with pytest.raises(FileNotFoundError):
        find(root, f"{tree}/nothing/new", follow=True)
    with pytest.raises(NotADirectoryError):
        find(root, f"{tree}/file/new", follow=True)


def test_without_a_jail_the_root_holds_all(tree: Path) -> None:
    with held("/") as root:
        assert content(find(root, f"{tree}/out", follow=True)) == "outside"
        assert content(find(root, f"/../../{tree}/a/../file", follow=False)) == "inside"


names = st.lists(
    st.sampled_from(["..", "a", "b", "up", "to-a", "out-directory", "self", "", "."]), max_size=8
)


@given(names, st.booleans())
def test_wherever_a_path_leads_it_is_inside(
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


def test_somebody_who_swaps_directories_and_links_all_the_time(tree: Path, root: Root) -> None:
    """What was opened stays what it is: either the way in, or an error, never what lies outside."""
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
    outcomes = set()
    try:
        for turn in range(3000):
            try:
                outcomes.add(content(find(root, f"{tree}/a/file", follow=bool(turn % 2))))
            except (OutsideRoot, Symlink, OSError) as error:
                outcomes.add(type(error).__name__)
    finally:
        stop.set()
        swapper.join()
    assert "outside" not in outcomes
    assert "inside" in outcomes


def test_no_descriptor_is_left(tree: Path, root: Root) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for path in ESCAPES:
        try:
            find(root, path.format(jail=tree, parent=tree.parent), follow=True).close()
        except (OutsideRoot, Symlink, OSError):
            continue
    assert len(os.listdir("/proc/self/fd")) == before


NOBODY = 65534
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="owners can only be changed by root")

REPLACEABLE: dict[str, tuple[str, dict[str, tuple[int, int]], str]] = {
    # name: the path below the test's directory, owners and modes of some parts, what is said
    "above it, the user's": (
        "a/jail",
        {"a": (NOBODY, 0o755)},
        "the owner of .*/a, nobody, can replace .*/a/jail",
    ),
    "further above it, the user's": ("a/b/jail", {"a": (NOBODY, 0o755)}, "can replace .*/a/b"),
    "above it, a user's without a name": ("a/jail", {"a": (54321, 0o755)}, "the owner of .*/a, user 54321"),
    "above it, writable for all": ("a/jail", {"a": (0, 0o777)}, "users other than root can write to .*/a"),
    "above it, writable for a group": (
        "a/jail",
        {"a": (0, 0o775)},
        "users other than root can write to .*/a",
    ),
    "the user's, in a directory with the sticky bit": (
        "a/jail",
        {"a": (0, 0o1777), "a/jail": (NOBODY, 0o755)},
        "its owner, nobody, can replace .*/a/jail",
    ),
    "a link": ("link", {}, "link is a symbolic link; name the directory"),
    "a link above it": ("link/jail", {}, "link is a symbolic link; name the directory"),
    "a link to nothing": ("dangling", {}, "dangling is a symbolic link"),
    "a way back": ("a/../a/jail", {}, 'there is ".." in it'),
}


@root_only
@pytest.mark.parametrize("name", REPLACEABLE)
def test_a_root_that_others_can_replace(tmp_path: Path, name: str) -> None:
    (tmp_path / "a" / "b" / "jail").mkdir(parents=True)
    (tmp_path / "a" / "jail").mkdir()
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "dangling").symlink_to("nothing")
    path, parts, said = REPLACEABLE[name]
    for part, (owner, mode) in parts.items():
        os.chown(tmp_path / part, owner, -1)
        os.chmod(tmp_path / part, mode)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(Replaceable, match=said):
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
def test_a_root_that_only_root_can_replace(
    tmp_path: Path, path: str, parts: dict[str, tuple[int, int]]
) -> None:
    (tmp_path / "a" / "jail").mkdir(parents=True)
    for part, (owner, mode) in parts.items():
        os.chown(tmp_path / part, owner, -1)
        os.chmod(tmp_path / part, mode)
    with held(f"{tmp_path}/{path}") as root:
        assert os.path.samestat(os.fstat(root.descriptor), os.stat(tmp_path / "a" / "jail"))


def test_a_root_that_is_missing_or_a_file(tree: Path) -> None:
    with pytest.raises(FileNotFoundError):
        hold(f"{tree}/nothing")
    with pytest.raises(NotADirectoryError):
        hold(f"{tree}/file")


def test_a_root_stays_what_was_opened(tree: Path, root: Root) -> None:
    os.rename(tree, tree.parent / "moved")
    tree.symlink_to(tree.parent / "jailbreak")
    assert content(find(root, f"{tree}/file", follow=True)) == "inside"
