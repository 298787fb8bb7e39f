"""`deb` and `script`: what they run, in which order, and how they fail, as Debian's modules do."""

import os
from pathlib import Path

import pytest
from helpers.module_tree import Tree, debian_module, ours

SAY = b'#!/bin/sh\necho "$(basename "$0") $# $(pwd)" >> "$OUT"\n'


def make(root: Path, module: tuple[str, ...], files: dict[str, bytes]) -> Tree:
    root.mkdir(exist_ok=True)
    tree = Tree(root / "tree", module, files)
    tree.environment["OUT"] = str(root / "out")
    return tree


def out(tree: Tree) -> list[str]:
    path = tree.path.parent / "out"
    text = path.read_text().replace(str(tree.path.parent), "ROOT") if path.exists() else ""
    return text.splitlines()


SCRIPTS: list[dict[str, bytes]] = [
    {"b": SAY, "a": SAY, "C": SAY, "two words": SAY},
    {"a": SAY, "b": b"#!/bin/sh\nexit 3\n", "c": SAY},
    {"a": b'echo "without an interpreter $#" >> "$OUT"\n'},
    {"a": SAY, ".hidden": SAY},
    {"-a": SAY, "*": SAY, "$(id)": SAY},
    {"a": b"#!/bin/nothing\n"},
    {"a": b"#!/bin/sh\r\necho a\r\n"},
    {"a": b"#!/bin/sh\nkill -9 $$\n"},
    {"a": b""},
    {},
]


@pytest.mark.real
@pytest.mark.parametrize("files", SCRIPTS)
def test_scripts_run_as_with_the_module_of_debian(tmp_path: Path, files: dict[str, bytes]) -> None:
    found = []
    for name, module in (("ours", ours("script")), ("debian", debian_module("script"))):
        tree = make(tmp_path / name, module, files)
        code = tree.call("ArtifactInstall").code
        modes = sorted((path.name, path.stat().st_mode) for path in (tree.path / "files").iterdir())
        found.append((out(tree), bool(code), modes))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (b"#!/bin/sh\necho why >&2\nexit 3\n", "a ended with exit code 3; its output above says why."),
        (b"#!/bin/sh\nkill -9 $$\n", "a was killed by signal 9; its output above says why."),
        (b"#!/bin/nothing\n", "its first line names the interpreter /bin/nothing, which cannot be used"),
    ],
)
def test_a_script_that_fails_is_named(tmp_path: Path, script: bytes, expected: str) -> None:
    done = make(tmp_path, ours("script"), {"a": script}).call("ArtifactInstall")
    assert done.code == 1
    assert expected in done.err


def stand_in(root: Path, exit_code: int) -> str:
    """Put a dpkg into a directory that notes its arguments, and return PATH with it."""
    programs = root / "programs"
    programs.mkdir()
    (programs / "dpkg").write_text(f'#!/bin/sh\nfor i; do echo "$i"; done >> "$OUT"\nexit {exit_code}\n')
    (programs / "dpkg").chmod(0o755)
    return f"{programs}:{os.environ['PATH']}"


@pytest.mark.real
@pytest.mark.parametrize("exit_code", [0, 1])
def test_packages_are_installed_as_with_the_module_of_debian(tmp_path: Path, exit_code: int) -> None:
    path = stand_in(tmp_path, exit_code)
    found = []
    for name, module in (("ours", ours("deb")), ("debian", debian_module("deb"))):
        tree = make(tmp_path / name, module, {"b.deb": b"", "a b.deb": b"", "readme": b"", ".c.deb": b""})
        tree.environment["PATH"] = path
        found.append((bool(tree.call("ArtifactInstall").code), out(tree)))
    assert found[0] == found[1]
    assert found[0][1] == ["-i", "ROOT/tree/files/a b.deb", "ROOT/tree/files/b.deb"]


def test_a_real_package_that_is_none_is_rejected(tmp_path: Path) -> None:
    done = make(tmp_path, ours("deb"), {"a.deb": b"no package"}).call("ArtifactInstall")
    assert done.code == 1
    assert done.err.endswith("dpkg ended with exit code 1; its output above says why.\n")


def test_a_payload_without_packages_is_rejected(tmp_path: Path) -> None:
    tree = make(tmp_path, ours("deb"), {"a.rpm": b""})
    assert "it has no file whose name ends in .deb" in tree.rejects("ArtifactInstall")
