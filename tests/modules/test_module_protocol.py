"""What is common to all our update modules: the calls of protocol version 3 and how they fail."""

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.device import REPO, SYSTEM_PYTHON
from helpers.module_tree import Tree, ours

from mender_oneshot.modules import MODULES

ANSWERS = {
    "deb": ("", "", ""),
    "directory": ("", "No", "Yes"),
    "rootfs-image": ("Yes", "Automatic", "Yes"),
    "script": ("", "", ""),
    "single-file": ("", "No", "Yes"),
}
QUESTIONS = ("ProvidePayloadFileSizes", "NeedsArtifactReboot", "SupportsRollback")
EVERY = pytest.mark.parametrize("name", sorted(MODULES))


def test_the_table_names_every_module() -> None:
    assert set(ANSWERS) == set(MODULES)


@EVERY
def test_questions_have_the_reference_modules_answers(tmp_path: Path, name: str, python: str) -> None:
    tree = Tree(tmp_path / "tree", ours(MODULES[name], python))
    for question, answer in zip(QUESTIONS, ANSWERS[name], strict=True):
        done = tree.call(question)
        assert (done.code, done.out, done.err) == (0, f"{answer}\n" if answer else "", "")


@EVERY
@pytest.mark.parametrize("call", ["ArtifactReboot", "SupportsAugmentedArtifacts", "OfTheFuture", ""])
def test_an_unknown_call_prints_nothing_and_succeeds(tmp_path: Path, name: str, call: str) -> None:
    done = Tree(tmp_path / "tree", ours(MODULES[name])).call(call)
    assert (done.code, done.out, done.err) == (0, "", "")


@EVERY
@pytest.mark.parametrize("call", ["ArtifactRollback", "ArtifactFailure", "Cleanup"])
def test_what_follows_an_installation_that_never_began_succeeds(tmp_path: Path, name: str, call: str) -> None:
    tree = Tree(tmp_path / "tree", ours(MODULES[name]))
    tree.environment = {"MENDER_CONF_DIR": str(tmp_path), "MENDER_DATASTORE_DIR": str(tmp_path)}
    done = tree.call(call)
    assert (done.code, done.out) == (0, "")


@EVERY
def test_it_is_a_program_too(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"mender_oneshot.modules.{MODULES[name]}"],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "Cannot run this update module: it needs two arguments, the name of a call and a directory.\n"
    )


@EVERY
@pytest.mark.parametrize("python", [sys.executable, SYSTEM_PYTHON])
def test_it_needs_the_standard_library_only(tmp_path: Path, name: str, python: str) -> None:
    libraries = ("click", "urllib3", "cryptography", "msgpack", "wsproto")
    code = f"import sys; sys.modules |= dict.fromkeys({libraries}); "
    words = list(ours(MODULES[name], python))
    done = subprocess.run(
        [*words[:3], code + words[3], "SupportsRollback", str(tmp_path)], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("name", ["directory", "script", "single-file", "deb"])
def test_a_tree_without_files_is_rejected(tmp_path: Path, name: str) -> None:
    Tree(tmp_path / "tree", ours(MODULES[name]), {}).rejects("ArtifactInstall")


@EVERY
def test_start_up_is_cheap(tmp_path: Path, name: str) -> None:
    probe = f"import sys; import mender_oneshot.modules.{MODULES[name]}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], cwd=REPO, capture_output=True, text=True, check=True)
    assert not {"logging", "ssl", "http", "tarfile", "inspect"} & set(done.stdout.split())
