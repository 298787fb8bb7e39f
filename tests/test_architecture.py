"""The structure of the repository: import directions, the cost of a start, documents that must agree."""

import ast
import json
import re
import shutil
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from helpers.artifacts import make_artifact
from helpers.device import REPO, Device
from helpers.real_daemon import need

from mender_oneshot import steps
from mender_oneshot.devserver import DevServer

HEAVY = ("urllib3", "cryptography", "click", "logging", "dataclasses", "inspect", "ssl", "http")

# Runs the tool as the console script does, then says which of the modules named it has imported.
PROBE = """
import atexit, json, os, sys
from mender_oneshot.__main__ import main
names, sys.argv = json.loads(sys.argv[1]), ["mender-oneshot", *sys.argv[2:]]
code = main()
found = [name for name in names if name in sys.modules]
os.write(2, ("\\n" + json.dumps(found)).encode())
sys.exit(code)
"""


def imported(device: Device, *words: str) -> set[str]:
    done = subprocess.run(
        [device.python, "-c", PROBE, json.dumps(HEAVY), *words],
        env=device.env(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 16), done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_imports_point_downwards() -> None:
    tool = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([tool, "--no-cache"], cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


TESTS = REPO / "tests"


def imported_modules(path: Path) -> set[str]:
    """Return the names of the modules that a file imports anywhere, `helpers.x` for a helper."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "helpers":
            found |= {f"helpers.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_no_test_and_no_helper_imports_a_test() -> None:
    tests = {path.stem for path in TESTS.rglob("test_*.py")} | {"conftest"}
    found = {
        str(path.relative_to(TESTS)): sorted(imported_modules(path) & tests) for path in TESTS.rglob("*.py")
    }
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_helpers_import_each_other_without_a_circle() -> None:
    helpers = {f"helpers.{path.stem}": path for path in (TESTS / "helpers").glob("*.py")}
    order = TopologicalSorter({name: imported_modules(path) & set(helpers) for name, path in helpers.items()})
    assert set(order.static_order()) == set(helpers)  # raises CycleError, which names the circle


def test_nothing_due_costs_nothing_dear(accepted: Device) -> None:
    accepted.ok("run", "--all")
    assert imported(accepted, "run") == set()
    assert imported(accepted, "run", "--all") == set()


def test_the_libraries_are_paid_for_where_they_are_used(
    accepted: Device, server: DevServer, tmp_path: Path
) -> None:
    """The paragraph "What is imported when" of the architecture."""
    assert imported(accepted, "check-update") & {"urllib3", "cryptography", "click", "http"} == {"http"}
    assert imported(accepted, "send-inventory") & {"urllib3", "cryptography", "click", "http"} == {"http"}
    assert imported(accepted, "auth") & {"urllib3", "cryptography", "click"} == set()  # the token is kept
    artifact = str(make_artifact(tmp_path / "release-2.mender"))
    assert imported(accepted, "verify", artifact) & {"urllib3", "cryptography", "click"} == set()
    assert imported(accepted, "status") & {"urllib3", "cryptography"} == set()
    assert imported(accepted, "bootstrap") & {"urllib3", "cryptography"} == {"cryptography"}


def test_an_installation_keeps_no_library_in_memory(device: Device, tmp_path: Path) -> None:
    module = device.scripts / "modules" / "v3" / "app"
    module.parent.mkdir(parents=True)
    module.write_text("#!/bin/sh\n[ $1 != SupportsRollback ] || echo Yes\n")
    module.chmod(0o755)
    artifact = make_artifact(tmp_path / "release-2.mender")
    assert imported(device, "install", str(artifact)) & {"urllib3", "cryptography"} == set()
    assert imported(device, "commit") & {"urllib3", "cryptography", "click"} == set()


def test_an_update_with_a_good_token_needs_none_of_the_libraries(accepted: Device, release: object) -> None:
    accepted.sub_updater()
    release()  # type: ignore[operator]
    assert imported(accepted, "run", "--all") & {"urllib3", "cryptography", "click"} == set()


@pytest.mark.parametrize(
    ("library", "words"),
    [("click", "status --json"), ("cryptography", "bootstrap -F")],
)
def test_a_missing_library_is_said_in_a_sentence(accepted: Device, library: str, words: str) -> None:
    before = accepted.state
    probe = f"import sys; sys.modules[{library!r}] = None; from mender_oneshot.__main__ import main; "
    probe += f"sys.argv[1:] = {words.split()!r}; sys.exit(main())"
    done = subprocess.run(
        [accepted.python, "-c", probe], env=accepted.env(), capture_output=True, text=True, check=False
    )
    sentence = f"The library {library} is missing; install python3-{library}.\n"
    assert (done.returncode, done.stderr) == (78, sentence)
    if "--json" in words:
        assert json.loads(done.stdout)["error"] == sentence.strip()
    else:
        assert done.stdout == ""
    assert accepted.state == before


@pytest.mark.parametrize("name", steps.FILES)
def test_every_step_loads_and_has_the_shape(name: str) -> None:
    assert callable(steps.load(name).run)


def test_the_readme_and_the_help_list_the_same_exit_codes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mender_oneshot", "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPO,
    )
    said = dict(re.findall(r"^ +(\d+) +(.+)$", done.stdout, re.MULTILINE))
    written = dict(re.findall(r"^\| (\d+) \| (.+) \|$", (REPO / "README.md").read_text(), re.MULTILINE))
    assert said == written
    assert len(said) == 15


def test_the_readme_names_every_command() -> None:
    readme = (REPO / "README.md").read_text()
    done = subprocess.run(
        [sys.executable, "-m", "mender_oneshot", "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPO,
    )
    commands = re.findall(r"^  ([a-z-]+)  ", done.stdout.partition("Commands:")[2], re.MULTILINE)
    assert len(commands) >= 10
    assert not [command for command in commands if f"`{command}" not in readme]


CITATION = re.compile(r"(device-api|remote-terminal|update-modules)\.md`?,?(?: sections?)? ?(\d+(?:\.\d+)?)?")


def test_every_citation_leads_to_a_section_in_the_repository() -> None:
    sections = {
        page.stem: set(re.findall(r"^#+ (\d+(?:\.\d+)?)", page.read_text(), re.MULTILINE))
        for page in (REPO / "docs" / "reference").glob("*.md")
    }
    places = [*(REPO / "mender_oneshot").rglob("*.py"), *(REPO / "tests").rglob("*.py")]
    lost = [
        f"{path.relative_to(REPO)}: {page}.md {section}"
        for path in places
        for page, section in CITATION.findall(path.read_text())
        if page not in sections or section and section not in sections[page]
    ]
    assert not lost


def test_make_without_a_target_lists_the_targets_and_runs_none(tmp_path: Path) -> None:
    makefile = (REPO / "Makefile").read_text()
    (tmp_path / "Makefile").write_text(makefile)
    done = subprocess.run(["make", "-C", tmp_path, "-s"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    listed = re.findall(r"^make ([a-z-]+) +[a-z].{9,}$", done.stdout, re.MULTILINE)
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert sorted(listed) == sorted(phony.split())
    assert [path.name for path in tmp_path.iterdir()] == ["Makefile"]


@pytest.mark.parametrize(
    "page", ["README.md", "docs/contributing.md", "docs/install.md", "docs/packaging/README.md"]
)
def test_every_make_command_in_the_documents_exists(page: str) -> None:
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (REPO / "Makefile").read_text(), re.MULTILINE)
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)(?=[ `\n])", (REPO / page).read_text(), re.MULTILINE))
    assert named
    assert named <= set(phony.split())


SHELLS = re.compile(rb"#!/(bin/sh|bin/bash|usr/bin/env bash)( .*)?\n")


def shell_scripts() -> list[str]:
    """Every file with the first line of a shell script, outside the package and its tests."""
    places = [path for name in (".ci", "docs", "cron", "systemd-timers") for path in (REPO / name).rglob("*")]
    return sorted(
        str(path.relative_to(REPO)) for path in places if path.is_file() and SHELLS.match(path.read_bytes())
    )


@pytest.mark.real
@pytest.mark.parametrize("name", shell_scripts())
def test_shellcheck_finds_nothing(name: str) -> None:
    need("shellcheck")
    done = subprocess.run(["shellcheck", REPO / name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_shell_scripts_are_found() -> None:
    assert {".ci/run", ".ci/venv", "docs/packaging/install.sh"} < set(shell_scripts())


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with the checker of phrases and no phrase to find."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(REPO / ".ci" / "words.py", tmp_path / ".ci")
    (tmp_path / ".ci" / "words-allowed").touch()
    (tmp_path / "docs").mkdir()
    for name in ("README.md", "Makefile", "pyproject.toml"):
        (tmp_path / name).touch()
    return tmp_path


def check_phrases(tree: Path, *options: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, tree / ".ci" / "words.py", *options], capture_output=True, text=True, check=False
    )
    assert not done.stderr
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("docs/a.md", "It goes on\nthere.\n", "docs/a.md:1: 'goes on'; write: continue, resume"),
        ("docs/a.1", ".TH\nMend it.\n", "docs/a.1:2: 'Mend'; write: fix, correct"),
        ("README.md", "It is told of that.\n", "README.md:1: 'is told of'; write: is informed, gets, sees"),
        ("docs/a.py", "x = 1  # for ever\n", "docs/a.py:1: 'for ever'; write: forever, never"),
        ("docs/a.py", '"""A.\n\nIt shall.\n"""\n', "docs/a.py:3: 'shall'; write: must, will"),
        (
            "docs/a.py",
            "x = f'somebody {1}'\n",
            "docs/a.py:1: 'somebody'; write: name the server, the user or the",
        ),
        ("docs/a.py", "nobody = 1\n", None),
        ("docs/a.md", "Connection refused by the Mender server\n", None),
    ],
)
def test_a_phrase_to_avoid_is_found_in_prose_only(
    tree: Path, name: str, text: str, found: str | None
) -> None:
    assert check_phrases(tree) == (0, "")
    (tree / name).write_text(text)
    code, output = check_phrases(tree)
    assert (code, output.startswith(found or "")) == (0 if found is None else 1, True)


def test_a_file_may_have_as_many_phrases_as_were_counted_and_no_more(tree: Path) -> None:
    (tree / "docs" / "old.md").write_text("Mend it, and mend that.\n")
    check_phrases(tree, "--rewrite")
    assert (tree / ".ci" / "words-allowed").read_text() == "2 docs/old.md\n"
    assert check_phrases(tree) == (0, "")
    (tree / "docs" / "old.md").write_text("Mend it.\n")
    assert check_phrases(tree) == (0, "")
    (tree / "docs" / "old.md").write_text("Mend it, mend that, mend all.\n")
    assert "docs/old.md has 3, and may have 2." in check_phrases(tree)[1]


def test_a_test_that_hangs_is_ended_with_a_traceback(tmp_path: Path) -> None:
    hanging = tmp_path / "test_hanging.py"
    hanging.write_text("import threading\n\ndef test_it():\n    threading.Event().wait()\n")
    options = ["-c", f"{REPO}/pyproject.toml", "-o", "faulthandler_timeout=1", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-o", "pythonpath=", *options, hanging],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "test_hanging.py" in done.stderr
