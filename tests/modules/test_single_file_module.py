"""`single-file`: one file, replaced and restored, as Debian's module of that name does it."""

import os
import shutil
from pathlib import Path

import pytest
from helpers.module_tree import Cut, Tree, debian_module, listing, ours
from hypothesis import given, settings
from hypothesis import strategies as st

OLD = b"old " * 500_000
NEW = b"new " * 600_000


def make(root: Path, module: tuple[str, ...], **files: bytes) -> Tree:
    dest = root / "dest"
    usual = {"dest_dir": f"{dest}\n".encode(), "filename": b"app\n", "permissions": b"751\n", "app": NEW}
    return Tree(root / "tree", module, {name: text for name, text in (usual | files).items() if text != b"-"})


def put_old(root: Path) -> None:
    (root / "dest").mkdir(parents=True)
    (root / "dest" / "app").write_bytes(OLD)
    (root / "dest" / "app").chmod(0o640)
    os.chown(root / "dest" / "app", 1000, 1001)
    os.utime(root / "dest" / "app", ns=(10**18, 10**18))


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    put_old(tmp_path)
    return make(tmp_path, ours("single_file"))


def dest(tree: Tree) -> Path:
    return tree.path.parent / "dest"


def test_the_file_is_replaced_and_restored_with_owner_mode_and_time(tree: Tree) -> None:
    before = listing(dest(tree))
    tree.ok("ArtifactInstall")
    assert listing(dest(tree))["app"] == ("0o100751", os.getuid(), os.getgid(), NEW)
    tree.ok("ArtifactRollback")
    assert listing(dest(tree)) == before
    assert (dest(tree) / "app").stat().st_mtime_ns == 10**18
    tree.ok("ArtifactRollback")
    assert listing(dest(tree)) == before


def test_a_file_that_was_not_there_is_removed_by_the_rollback(tmp_path: Path) -> None:
    tree = make(tmp_path, ours("single_file"))
    tree.ok("ArtifactInstall")
    assert list(listing(dest(tree))) == [".", "app"]
    for _ in range(2):
        tree.ok("ArtifactRollback")
        assert list(listing(dest(tree))) == ["."]


def test_a_second_installation_keeps_the_first_backup(tree: Tree) -> None:
    before = listing(dest(tree))
    tree.ok("ArtifactInstall")
    tree.ok("ArtifactInstall")
    tree.ok("ArtifactRollback")
    assert listing(dest(tree)) == before


def test_a_link_is_replaced_and_restored_not_what_it_leads_to(tree: Tree) -> None:
    (dest(tree) / "app").rename(dest(tree) / "app-1")
    (dest(tree) / "app").symlink_to("app-1")
    before = listing(dest(tree))
    tree.ok("ArtifactInstall")
    assert not (dest(tree) / "app").is_symlink()
    assert (dest(tree) / "app-1").read_bytes() == OLD
    tree.ok("ArtifactRollback")
    assert listing(dest(tree)) == before


def test_a_file_prepared_under_the_unfinished_name_is_not_written_through(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"safe")
    (dest(tree) / ".mender-oneshot.new").symlink_to(tmp_path / "victim")
    tree.ok("ArtifactInstall")
    assert (tmp_path / "victim").read_bytes() == b"safe"
    assert list(listing(dest(tree))) == [".", "app"]


def test_a_rollback_of_an_unchanged_file_needs_no_room(tree: Tree) -> None:
    tree.ok("ArtifactInstall")
    tree.ok("ArtifactRollback")
    before = (dest(tree) / "app").stat().st_ino
    tree.ok("ArtifactRollback")
    assert (dest(tree) / "app").stat().st_ino == before


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"filename": b"../app"}, "not the name of a file"),
        ({"filename": b"sub/app"}, "not the name of a file"),
        ({"filename": b".."}, "not the name of a file"),
        ({"filename": b"\n"}, "its file filename is empty"),
        ({"filename": b"-"}, "it has no file filename"),
        ({"filename": b"other"}, "it has no file other"),
        ({"filename": b"app\nother"}, "it has no file app?other"),
        ({"filename": b"app\0"}, "not a short text"),
        ({"filename": b".mender-oneshot.new"}, "is reserved"),
        ({"dest_dir": b""}, "its file dest_dir is empty"),
        ({"dest_dir": b"relative/place"}, "not an absolute path"),
        ({"dest_dir": b"../../etc"}, "not an absolute path"),
        ({"dest_dir": b"/" + b"x" * 100_000}, "not a short text"),
        ({"dest_dir": b"/dev/null/x"}, "Cannot keep a copy of /dev/null/x/app"),
        ({"permissions": b"rwx"}, "not an octal number"),
        ({"permissions": b"77777"}, "not an octal number"),
        ({"app": b"-"}, "it has no file app"),
    ],
)
def test_a_bad_payload_is_rejected_and_its_rollback_succeeds(
    tmp_path: Path, files: dict[str, bytes], expected: str
) -> None:
    put_old(tmp_path)
    before = listing(tmp_path / "dest")
    tree = make(tmp_path, ours("single_file"), **files)
    assert expected in tree.rejects("ArtifactInstall")
    tree.ok("ArtifactRollback")
    tree.ok("Cleanup")
    assert listing(tmp_path / "dest") == before


@pytest.mark.parametrize("kind", ["directory", "fifo"])
def test_what_is_no_file_is_not_replaced(tree: Tree, kind: str) -> None:
    (dest(tree) / "app").unlink()
    if kind == "fifo":
        os.mkfifo(dest(tree) / "app")
    else:
        (dest(tree) / "app").mkdir()
    before = listing(dest(tree))
    assert "is not a file; remove it" in tree.rejects("ArtifactInstall")
    tree.ok("ArtifactRollback")
    assert listing(dest(tree)) == before


@pytest.mark.real
@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize(
    ("name", "directory", "permissions"),
    [
        ("app", "dest", b"751"),
        ("app", "dest", b"-"),
        ("app", "dest", b"4755\n"),
        ("two words", "dest", b"0600"),
        ("*", "dest", b"644"),
        (" app", "dest/a/../b c", b"644\n\n"),
    ],
)
def test_the_files_are_the_same_as_with_the_module_of_debian(
    tmp_path: Path, name: str, directory: str, permissions: bytes, old: bool
) -> None:
    found = []
    for root, module in (
        (tmp_path / "ours", ours("single_file")),
        (tmp_path / "debian", debian_module("single-file")),
    ):
        (root / "dest" / "a").mkdir(parents=True)
        target = root / directory
        files = {"dest_dir": f"{target}\n\n".encode(), "filename": name.encode(), name: NEW}
        tree = make(root, module, permissions=permissions, **files)
        if old:
            target.mkdir(exist_ok=True)
            (target / name).write_bytes(OLD)
            os.chown(target / name, 1000, 1001)
        tree.ok("ArtifactInstall")
        after = [listing(root / "dest")]
        if old:  # otherwise Debian's leaves the new file in place
            tree.ok("ArtifactRollback")
            after.append(listing(root / "dest"))
            assert (target / name).read_bytes() == OLD
        found.append(after)
    assert found[0] == found[1]


# --- power cuts


def state(root: Path) -> object:
    """Return the old file, the new one, or nothing, whole; anything else is mixed."""
    path = root / "dest" / "app"
    return {OLD: "old", NEW: "new"}.get(path.read_bytes(), "mixed") if path.exists() else "none"


@pytest.mark.parametrize("old", [True, False])
def test_a_cut_at_every_write_of_the_installation_leaves_old_or_new_and_rolls_back(
    tmp_path: Path, old: bool
) -> None:
    def fresh(name: str) -> Tree:
        if old:
            put_old(tmp_path / name)
        return make(tmp_path / name, ours("single_file"))

    was = "old" if old else "none"
    cuts = fresh("all").cuts("ArtifactInstall", tmp_path / "log")
    assert len(cuts) > 15
    for cut in cuts:
        tree = fresh("cut")
        assert tree.cut("ArtifactInstall", cut), cut
        assert state(tmp_path / "cut") in (was, "new"), cut
        tree.ok("ArtifactRollback")
        assert state(tmp_path / "cut") == was, cut
        assert set(listing(tmp_path / "cut" / "dest")) <= {".", "app"}, cut
        shutil.rmtree(tmp_path / "cut")


def test_a_cut_at_every_write_of_the_rollback_leaves_old_or_new_and_the_next_one_ends_it(
    tmp_path: Path,
) -> None:
    def fresh(name: str) -> Tree:
        put_old(tmp_path / name)
        tree = make(tmp_path / name, ours("single_file"))
        tree.ok("ArtifactInstall")
        return tree

    for cut in fresh("all").cuts("ArtifactRollback", tmp_path / "log"):
        tree = fresh("cut")
        assert tree.cut("ArtifactRollback", cut), cut
        assert state(tmp_path / "cut") in ("old", "new"), cut
        tree.ok("ArtifactRollback")
        assert state(tmp_path / "cut") == "old", cut
        shutil.rmtree(tmp_path / "cut")


CALLS = st.tuples(
    st.sampled_from(["write", "fsync", "rename", "unlink", "mkdir", "fchown", "utimensat"]), st.integers(1, 8)
)


@settings(max_examples=12)
@given(
    old=st.booleans(),
    installs=st.lists(CALLS, min_size=1, max_size=2),
    rollbacks=st.lists(CALLS, max_size=3),
    commit=st.booleans(),
)
def test_any_cuts_end_in_old_or_new(
    tmp_path_factory: pytest.TempPathFactory,
    old: bool,
    installs: list[tuple[str, int]],
    rollbacks: list[tuple[str, int]],
    commit: bool,
) -> None:
    root = tmp_path_factory.mktemp("cuts")
    if old:
        put_old(root)
    tree = make(root, ours("single_file"))
    was = "old" if old else "none"
    complete = False
    for name, nth in installs:
        complete = not tree.cut("ArtifactInstall", Cut(name, nth))
        assert state(root) in (was, "new")
    if complete and commit:
        tree.ok("ArtifactCommit")
    else:
        for name, nth in rollbacks:
            tree.cut("ArtifactRollback", Cut(name, nth))
            assert state(root) in (was, "new")
        tree.ok("ArtifactRollback")
    tree.ok("Cleanup")
    assert state(root) == ("new" if complete and commit else was)
    shutil.rmtree(root)
