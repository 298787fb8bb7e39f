"""`directory`: a whole directory, exchanged and restored, as Debian's module of that name does it."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.module_tree import Cut, Tree, debian_module, listing, ours
from hypothesis import given, settings
from hypothesis import strategies as st

Fill = Callable[[Path], None]


def fill(directory: Path, word: str) -> None:
    """Fill a directory with some of each kind; no file of two of them has the same content."""
    (directory / "sub" / "empty").mkdir(parents=True)
    for name in ("app", "sub/library", f"only-{word}"):
        (directory / name).write_bytes(f"{word} {name} ".encode() * 1000)
    (directory / "app").chmod(0o4755)
    (directory / "sub" / "link").symlink_to("../app")
    (directory / "sub" / "dangling").symlink_to(f"/nowhere/{word}")
    os.link(directory / "app", directory / "hard")
    os.chown(directory / "sub" / "library", 1000, 1001)
    (directory / "sub").chmod(0o750)
    directory.chmod(0o711 if word == "new" else 0o755)


def archive(root: Path) -> bytes:
    """Make `update.tar` as directory-artifact-gen does."""
    source = root / "source"
    source.mkdir(parents=True)
    fill(source, "new")
    subprocess.run(["tar", "-cf", root / "update.tar", "-C", source, "."], check=True)
    shutil.rmtree(source)
    return (root / "update.tar").read_bytes()


def make(root: Path, module: tuple[str, ...], old: bool = True, dest: str = "") -> Tree:
    content = archive(root)
    if old:
        fill(root / "parent" / "dest", "old")
    (root / "parent").mkdir(exist_ok=True)
    dest = dest or f"{root}/parent/dest"
    return Tree(root / "tree", module, {"dest_dir": f"{dest}\n".encode(), "update.tar": content})


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return make(tmp_path, ours("directory"))


def parent(tree: Tree) -> Path:
    return tree.path.parent / "parent"


@pytest.mark.parametrize("old", [True, False])
def test_the_directory_is_replaced_and_restored(tmp_path: Path, old: bool) -> None:
    tree = make(tmp_path, ours("directory"), old=old)
    fill(tmp_path / "expected", "new")
    before = listing(parent(tree))
    tree.ok("ArtifactInstall")
    assert listing(parent(tree) / "dest") == listing(tmp_path / "expected")
    for _ in range(2):
        tree.ok("ArtifactRollback")
        assert listing(parent(tree)) == before
    tree.ok("Cleanup")
    assert listing(parent(tree)) == before


def test_the_cleanup_removes_the_old_directory(tree: Tree) -> None:
    tree.ok("ArtifactInstall")
    assert len(list(parent(tree).iterdir())) == 2
    for _ in range(2):
        tree.ok("Cleanup")
        assert [path.name for path in parent(tree).iterdir()] == ["dest"]


@pytest.mark.real
@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("dest", ["parent/dest", "parent/dest/", "parent/a/b/../c", "parent/link"])
def test_the_files_are_the_same_as_with_the_module_of_debian(tmp_path: Path, dest: str, old: bool) -> None:
    found = []
    for name, module in (("ours", ours("directory")), ("debian", debian_module("directory"))):
        root = tmp_path / name
        tree = make(root, module, old=old, dest=f"{root}/{dest}")
        (root / "parent" / "a" / "b").mkdir(parents=True)
        (root / "parent" / "link").symlink_to("a")
        tree.ok("ArtifactInstall")
        found.append([listing(root / "parent" / "dest"), listing(root / "parent" / "a")])
        if old and dest == "parent/dest":
            tree.ok("ArtifactRollback")
            found[-1].append(listing(root / "parent" / "dest"))
        tree.ok("Cleanup")
    assert found[0] == found[1]


def test_a_link_is_replaced_and_restored_not_what_it_leads_to(tmp_path: Path) -> None:
    tree = make(tmp_path, ours("directory"), dest=f"{tmp_path}/parent/link")
    (parent(tree) / "link").symlink_to("dest")
    before = listing(parent(tree))
    tree.ok("ArtifactInstall")
    assert (parent(tree) / "link" / "only-new").exists()
    assert not (parent(tree) / "dest" / "only-new").exists()
    tree.ok("ArtifactRollback")
    assert listing(parent(tree)) == before


@pytest.mark.parametrize("dest", ["/", "//", "/.", "/usr/..", "/proc", "relative", "", "a\0b"])
def test_a_directory_that_must_not_be_replaced_is_rejected(tmp_path: Path, dest: str) -> None:
    tree = make(tmp_path, ours("directory"))
    (tree.path / "files" / "dest_dir").write_text(dest)
    before = listing(parent(tree))
    tree.rejects("ArtifactInstall")
    tree.ok("ArtifactRollback")
    tree.ok("Cleanup")
    assert listing(parent(tree)) == before


def test_the_directory_of_the_update_itself_is_not_replaced(tmp_path: Path) -> None:
    tree = make(tmp_path, ours("directory"), dest=str(tmp_path))
    assert "the update itself is in it" in tree.rejects("ArtifactInstall")
    tree.ok("ArtifactRollback")


@pytest.mark.parametrize("damage", ["cut short", "no archive", "leads out"])
def test_a_bad_archive_leaves_the_old_directory(tree: Tree, tmp_path: Path, damage: str) -> None:
    path = tree.path / "files" / "update.tar"
    if damage == "cut short":
        path.write_bytes(path.read_bytes()[:5000])
    elif damage == "leads out":
        (tmp_path / "outside").write_text("outside")
        subprocess.run(["tar", "-cPf", path, "../outside"], cwd=parent(tree), check=True)
        (tmp_path / "outside").unlink()
    else:
        path.unlink()
    before = listing(parent(tree))
    assert tree.call("ArtifactInstall").code == 1
    tree.ok("ArtifactRollback")
    assert listing(parent(tree)) == before
    assert not (tmp_path / "outside").exists()


def test_what_a_lost_update_left_is_put_in_order(tree: Tree) -> None:
    before = listing(parent(tree))
    (parent(tree) / "dest").rename(parent(tree) / ".dest.mender-oneshot.old")  # cut between the two renames
    tree.ok("ArtifactInstall")
    tree.ok("ArtifactRollback")
    assert listing(parent(tree)) == before


def test_a_file_system_that_cannot_rename_directories_gets_a_copy(tree: Tree) -> None:
    before = listing(parent(tree))
    cannot = (
        "strace",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=rename",
        "-e",
        "inject=rename:error=EXDEV:when=2",
    )
    done = tree.call("ArtifactInstall", cannot)  # the first rename is that of the note
    assert done.code == 0, done
    assert (parent(tree) / "dest" / "only-new").exists()
    tree.ok("ArtifactRollback")
    assert listing(parent(tree)) == before


# --- power cuts


def state(tree: Tree) -> str:
    """Return "old" or "new" for a whole directory, "none" for none, "mixed" for anything else."""
    path = parent(tree) / "dest"
    if not path.exists():
        return "none"
    for word in ("old", "new"):
        model = tree.path.parent / f"model-{word}"
        if not model.exists():
            fill(model, word)
        if listing(path) == listing(model):
            return word
    return "mixed"


@pytest.mark.parametrize("call", ["ArtifactInstall", "ArtifactRollback", "Cleanup"])
@pytest.mark.parametrize("old", [True, False])
def test_a_cut_at_every_write_leaves_old_or_new_and_the_rollback_ends_it(
    tmp_path: Path, call: str, old: bool
) -> None:
    def fresh(name: str) -> Tree:
        tree = make(tmp_path / name, ours("directory"), old=old)
        if call != "ArtifactInstall":
            tree.ok("ArtifactInstall")
        return tree

    was = "old" if old else "none"
    cuts = fresh("all").cuts(call, tmp_path / "log")
    assert cuts
    for cut in cuts:
        tree = fresh("cut")
        assert tree.cut(call, cut), cut
        # Between its two renames there is neither; a cleanup follows a commit.
        allowed = {was, "new", "none"} if call != "Cleanup" else {"new"}
        assert state(tree) in allowed, cut
        if call == "Cleanup":
            tree.ok("Cleanup")
            assert state(tree) == "new"
        else:
            tree.ok("ArtifactRollback")
            assert state(tree) == was, cut
            tree.ok("Cleanup")
        assert {path.name for path in parent(tree).iterdir()} <= {"dest"}, cut
        shutil.rmtree(tmp_path / "cut")


def test_a_cut_while_tar_unpacks_leaves_the_old_directory(tree: Tree, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    tar = shutil.which("tar")
    (programs / "tar").write_text(f'#!/bin/sh\nhead -c 9000 "$2" | {tar} -xf - -C "$4"\nkill -9 $PPID\n')
    (programs / "tar").chmod(0o755)
    before = listing(parent(tree))
    tree.environment["PATH"] = f"{programs}:{os.environ['PATH']}"
    assert tree.call("ArtifactInstall").code == -signal.SIGKILL
    assert len(list(parent(tree).iterdir())) == 2
    tree.ok("ArtifactRollback")
    assert listing(parent(tree)) == before


CALLS = st.tuples(
    st.sampled_from(["rename", "mkdir", "unlinkat", "rmdir", "fsync", "write", "vfork"]), st.integers(1, 6)
)


@settings(max_examples=10)
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
    tree = make(root, ours("directory"), old=old)
    was = "old" if old else "none"
    complete = False
    for name, nth in installs:
        complete = not tree.cut("ArtifactInstall", Cut(name, nth))
        assert state(tree) in (was, "new", "none")
    if complete and commit:
        tree.ok("ArtifactCommit")
    else:
        for name, nth in rollbacks:
            tree.cut("ArtifactRollback", Cut(name, nth))
            assert state(tree) in (was, "new", "none")
        tree.ok("ArtifactRollback")
    tree.ok("Cleanup")
    assert state(tree) == ("new" if complete and commit else was)
    assert {path.name for path in parent(tree).iterdir()} <= {"dest"}
    shutil.rmtree(root)
