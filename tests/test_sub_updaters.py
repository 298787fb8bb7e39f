"""The sub-updaters of docs/examples: real command, real programs, and the power cut at every step."""

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from helpers import corpus
from helpers.artifacts import make_artifact
from helpers.corpus import Artifact
from helpers.device import REPO
from helpers.documents import small_sub_updaters
from helpers.power_cut import Field
from helpers.real_daemon import mender, need, world
from helpers.waiting import until

from mender_oneshot.devserver import DevServer

EXAMPLES = REPO / "docs" / "examples"
SCRIPTS = [path for path in sorted(EXAMPLES.iterdir()) if not path.suffix]

COUNTED = """\
#!/bin/sh
exec 9>>{root}/calls
flock 9
echo {name} >&9
if [ "$(wc -l <{root}/calls)" = "$CUT_BEFORE" ]; then
    echo cut >{root}/end
    kill -9 0
fi
exec 9>&-
exec {command} "$@"
"""
"""A program of the sub-updater's; before the CUT_BEFOREth call of any, the power fails."""

REBOOT = "echo rebooted >{root}/end; kill -9 0"

INSTALL = """\
#!/bin/sh
. {root}/environment
PATH={root}/bin:$PATH
echo $$ >{root}/group
{root}/example "$@"
echo done >{root}/end
"""

LEFT = {
    "sub-updater.notes",
    "sub-updater.notes.new",
    "modules",
    "scripts",
    "mender-store",
    "mender-store-lock",
    "history.json",
    "logs",
}
"""What may be in the data directory afterwards: the example's notes, what `mender` keeps, and the history."""


class Board:
    """A device with an example of a sub-updater, and in its PATH all that the example calls.

    The commands are those that are counted, and before which the power can fail.
    """

    def __init__(self, field: Field, text: str, commands: dict[str, str], **edits: str) -> None:
        self.field = field
        self.device = field.device
        self.root = field.device.root
        for before, after in edits.items():
            line = next(line for line in text.splitlines() if line.startswith(f"{before}="))
            text = text.replace(line, f"{before}={after}")
        self._program("example", text)
        (self.root / "bin").mkdir()
        oneshot = shlex.join([self.device.python, "-m", "mender_oneshot"])
        for name, command in {"mender-oneshot": oneshot, **commands}.items():
            self._program(f"bin/{name}", COUNTED.format(root=self.root, name=name, command=command))
        self.device.script("install", INSTALL.format(root=self.root))

    def _program(self, name: str, text: str) -> None:
        path = self.root / name
        path.write_text(text)
        path.chmod(0o755)

    def _fresh(self, cut: int) -> None:
        for name in ("calls", "end", "group"):
            (self.root / name).unlink(missing_ok=True)
        # A sub-updater gets no such variables from the client.
        variables = {"CUT_BEFORE": str(cut)} | {
            name: value for name, value in self.device.env().items() if name.startswith(("PYTHON", "DBUS"))
        }
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()]
        (self.root / "environment").write_text("".join(lines))

    def _end(self) -> str:
        """Wait until nothing of the sub-updater is left, and say how it ended."""
        end = self.root / "end"
        until(end.exists, "the sub-updater ends", 60)
        group = int((self.root / "group").read_text())
        until(lambda: not alive(group), "its last processes end")
        return end.read_text().strip()

    def hand_off(self, cut: int = 0) -> str:
        """Let mender-oneshot start the sub-updater: "done", "cut", or "rebooted"."""
        self._fresh(cut)
        self.device.ok("install")
        return self._end()

    def boot(self, cut: int = 0) -> str:
        """Call the sub-updater as a boot does."""
        self.field.reboot()
        self._fresh(cut)
        subprocess.run(
            [self.device.scripts / "install"],
            env=self.device.env(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            timeout=60,
            check=False,
        )
        return self._end()

    def end_of_story(self) -> str:
        """Let a timer tick, see that all is in order, and return the one final status."""
        steps = self.device.ok("run", "--all", "--force", "--json").json["steps"]
        assert ("check-update", "nothing") in [(step["step"], step["outcome"]) for step in steps]
        (final,) = self.field.finals()
        assert final == self.field.history()[-1]
        assert self.field.left_behind() <= LEFT
        return final

    def words(self) -> str:
        """The log at the server."""
        log = self.field.server.log(self.field.deployment) or []
        return "\n".join(entry["message"] for entry in log)


def alive(group: int) -> bool:
    """Whether a process group has a member that is no zombie."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, member = stat.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(member) == group and state not in "ZX":
            return True
    return False


def call_of(board: Board, name: str, nth: int) -> int:
    """Say which of all calls is the nth of this name, in an update without a cut; then it never was."""
    moment = board.field.keep()
    board.hand_off()
    calls = (board.root / "calls").read_text().splitlines()
    board.field.back_to(moment)
    return [at for at, call in enumerate(calls, 1) if call == name][nth - 1]


def every_cut(story: Callable[[int], str]) -> list[str]:
    """Run a story once for each call that the power can fail before, until it runs without a cut."""
    ends = []
    for cut in count(1):
        ends.append(story(cut))
        if ends[-1] == "done":
            return ends
    raise AssertionError


def every_cut_and_boot(
    board: Board, begin: Callable[[], None], running: Callable[[], tuple[str, str]]
) -> list[str]:
    """Tell the story of an update with reboots once for every call, at the boots too; return the results."""
    results = []

    def story(cut: int) -> str:
        begin()
        first = end = board.hand_off(cut)
        for _ in range(4):
            if end == "done":
                break
            # If the cut has not come yet, the count continues at the boot.
            calls = len((board.root / "calls").read_text().splitlines())
            cut = 0 if end == "cut" else max(cut - calls, 0)
            end = board.boot(cut)
            first = "cut" if end == "cut" else first
        assert end == "done"
        results.append(board.end_of_story())
        release = "release-2" if results[-1] == "success" else "release-1"
        assert running() == (release, release)
        return "cut" if first == "cut" else "done"

    every_cut(story)
    return results


@pytest.fixture
def field(tmp_path: Path, server: DevServer) -> Field:
    """A device that the server has accepted, and a server with nothing to deploy."""
    made = Field(tmp_path, server)
    assert made.device.run("auth").code == 77
    server.accept()
    made.device.ok("auth")
    return made


def downloaded(field: Field, artifact: Path) -> None:
    """Deploy an artifact and download it."""
    field.server.upload(artifact)
    field.deploy("release-2")
    field.device.ok("check-update")
    field.device.ok("download")


@pytest.mark.real
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_examples_are_plain_shell(script: Path) -> None:
    need("shellcheck", "busybox", "dash")
    assert script.stat().st_mode & 0o111
    subprocess.run(["shellcheck", script], check=True)
    for shell in (["busybox", "sh"], ["dash"]):
        subprocess.run([*shell, "-n", script], check=True)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_boot_with_no_update_in_hand_does_nothing(field: Field, script: Path) -> None:
    board = Board(field, script.read_text(), dict.fromkeys(("mender", "rauc", "reboot", "mv", "rm"), "echo"))
    asked = len(field.server.requests)
    assert board.boot() == "done"
    assert not (board.root / "calls").exists()
    assert len(field.server.requests) == asked


# --- One file -----------------------------------------------------------------------------------------------

GOOD = b"#!/bin/sh\necho release-2\n"
OLD = "#!/bin/sh\necho release-1\n"
ONE_FILE = ("ln", "mv", "rm")
MORE = (*ONE_FILE, "cat", "chmod", "cmp", "sync", "timeout")


def one_file(field: Field, counted: tuple[str, ...] = ONE_FILE) -> Board:
    app = field.device.root / "app"
    app.write_text(OLD)
    app.chmod(0o755)
    programs = {name: shutil.which(name) or name for name in counted}
    return Board(field, (EXAMPLES / "one-file").read_text(), programs, target=str(app))


def in_place(board: Board) -> tuple[str, str]:
    """What the file says when called, and what artifact_info says."""
    done = subprocess.run([board.root / "app"], capture_output=True, text=True, check=True)
    return done.stdout.strip(), board.device.ok("show-artifact").out.strip()


@pytest.mark.parametrize("compression", ["gz", "xz", "none"])
def test_one_file_is_replaced(field: Field, tmp_path: Path, compression: str) -> None:
    board = one_file(field)
    downloaded(
        field,
        make_artifact(tmp_path / "r", payload={"app": GOOD}, payload_type="app", compression=compression),
    )
    assert board.hand_off() == "done"
    assert board.end_of_story() == "success"
    assert in_place(board) == ("release-2", "release-2")
    assert sorted(path.name for path in board.root.glob("app*")) == ["app"]


@pytest.mark.real
@pytest.mark.parametrize("compression", ["gz", "xz"])
def test_one_file_is_replaced_by_busybox_alone(field: Field, tmp_path: Path, compression: str) -> None:
    board = one_file(field, counted=())
    bare_busybox(board, tmp_path)
    payload = {"app": GOOD}
    downloaded(
        field, make_artifact(tmp_path / "r", payload=payload, payload_type="app", compression=compression)
    )
    assert board.hand_off() == "done"
    assert board.end_of_story() == "success"
    assert in_place(board) == ("release-2", "release-2")


def bare_busybox(board: Board, tmp_path: Path) -> None:
    """Leave the sub-updater no programs but busybox's."""
    need("busybox")
    bare = tmp_path / "bare"
    bare.mkdir()
    subprocess.run(["busybox", "--install", "-s", bare], check=True)
    install = board.device.scripts / "install"
    text = install.read_text().replace("$PATH", str(bare)).replace("#!/bin/sh", f"#!{bare}/sh")
    install.write_text(text.replace(f"\n{board.root}/example", f"\nsh {board.root}/example"))


EVIL = b"#!/bin/sh\necho evil\n"


def two_readings() -> bytes:
    """An artifact that is read from the true size of its header, or by busybox from a larger one.

    The extra field of the payload's gzip header holds what a reader finds that goes wrong there.
    """
    parts = Artifact(
        files={"app": GOOD},
        header_info={**corpus.HEADER_INFO, "artifact_provides": {"artifact_name": "release-2"}},
        suffix=".gz",
    ).parts()
    hidden = corpus.compressed(corpus.member("app", EVIL) + corpus.END, ".gz")
    hidden = corpus.member("data/0000.tar.gz", hidden) + corpus.END
    stored = parts["data/0000.tar.gz"]
    # The hidden member must begin at a multiple of 512, as seen from the beginning of the payload.
    extra = bytes(512 - 12) + hidden
    stored = stored[:3] + b"\4" + stored[4:10] + len(extra).to_bytes(2, "little") + extra + stored[10:]
    whole = b"".join(corpus.member(name, content) for name, content in list(parts.items())[:2])
    head = parts["header.tar.gz"]
    skipped = len(corpus.padded(head)) + 512 + 512
    whole += (
        corpus.pax({"size": str(len(head))}) + corpus.header(b"header.tar.gz", skipped) + corpus.padded(head)
    )
    return whole + corpus.member("data/0000.tar.gz", stored) + corpus.END


@pytest.mark.real
def test_what_busybox_would_unpack_from_another_place_is_not_installed(field: Field, tmp_path: Path) -> None:
    board = one_file(field, counted=())
    bare_busybox(board, tmp_path)
    (tmp_path / "r").write_bytes(two_readings())
    command = f"tar -xOf {tmp_path}/r data/0000.tar.gz | {{}} tar -xzOf - app"
    seen = [
        subprocess.run(["sh", "-c", f"{tar} {command.format(tar)}"], capture_output=True).stdout
        for tar in ("", "busybox")
    ]
    assert seen == [GOOD, EVIL]
    downloaded(field, tmp_path / "r")
    assert field.device.run("install").code == 65
    assert board.end_of_story() == "failure"
    assert in_place(board) == ("release-1", "release-1")


@pytest.mark.parametrize("clears", [None, ["rootfs-image.app.*"]], ids=["clears all", "clears its own"])
def test_what_a_release_provides_is_there_for_the_next(
    field: Field, tmp_path: Path, clears: list[str] | None
) -> None:
    board = one_file(field)
    info = board.device.conf / "artifact_info"
    info.write_text("artifact_name=release-1\nrootfs-image.app.old=1\nother=kept\n")
    version = "rootfs-image.app.version"
    for number, needs in ((2, None), (3, {version: ["app-2"]}), (4, {version: ["app-2"]})):
        name = f"release-{number}"
        type_info = {"type": "app", "artifact_provides": {version: f"app-{number}"}}
        type_info |= {"artifact_depends": needs} if needs else {}
        type_info |= {"clears_artifact_provides": clears} if clears else {}
        made = Artifact(
            header_info={**corpus.HEADER_INFO, "artifact_provides": {"artifact_name": name}},
            type_info=type_info,
            files={"app": GOOD.replace(b"release-2", name.encode())},
        )
        (tmp_path / name).write_bytes(made.bytes())
        field.server.upload(tmp_path / name)
        field.deploy(name)
        field.device.ok("check-update")
        field.device.ok("download")
        if number == 4:
            assert (
                f"needs {version} to be app-2, but this device has app-3" in field.device.run("install").err
            )
            continue
        assert board.hand_off() == "done"
        field.device.ok("run", "--all", "--force")
        kept = ["other=kept"] if clears else []
        assert info.read_text().splitlines() == [f"artifact_name={name}", *kept, f"{version}=app-{number}"]
    assert "artifact.provides" not in field.left_behind()


@pytest.mark.parametrize(
    "payload",
    [{"app": b"#!/bin/sh\necho not today >&2\nexit 3\n"}, {"app": b"\0"}, {"other": GOOD}],
    ids=["does not start", "no program", "not in the artifact"],
)
def test_one_file_that_does_not_work_is_put_back(
    field: Field, tmp_path: Path, payload: dict[str, bytes]
) -> None:
    board = one_file(field)
    downloaded(field, make_artifact(tmp_path / "r", payload=payload, payload_type="app"))
    assert board.hand_off() == "done"
    assert board.end_of_story() == "failure"
    assert in_place(board) == ("release-1", "release-1")
    assert sorted(path.name for path in board.root.glob("app*")) == ["app"]
    if b"not today" in payload.get("app", b""):
        assert "not today" in board.words()


def test_one_file_whose_name_cannot_be_written_is_put_back(field: Field, tmp_path: Path) -> None:
    board = one_file(field)
    in_the_way = board.device.conf / "artifact_info.new"
    in_the_way.mkdir()
    downloaded(field, make_artifact(tmp_path / "r", payload={"app": GOOD}, payload_type="app"))
    moment = field.keep()
    results = []

    def story(cut: int) -> str:
        field.back_to(moment)
        end = board.hand_off(cut)
        # After the cut it could be written, but the old one may be back.
        in_the_way.rmdir()
        if end == "cut":
            assert board.boot() == "done"
        results.append(board.end_of_story())
        release = "release-2" if results[-1] == "success" else "release-1"
        assert in_place(board) == (release, release), cut
        assert sorted(path.name for path in board.root.glob("app*")) == ["app"]
        return end

    assert len(every_cut(story)) > 8
    assert results[-1] == "failure"
    # Cut when it had proven itself, and nothing else was noted yet.
    assert results.count("success") == 1


def test_one_file_whose_name_is_there_already_stays(field: Field, tmp_path: Path) -> None:
    board = one_file(field)
    downloaded(field, make_artifact(tmp_path / "r", payload={"app": GOOD}, payload_type="app"))
    # Cut when all is done but the report.
    assert board.hand_off(cut=call_of(board, "mender-oneshot", nth=2)) == "cut"
    (board.device.conf / "artifact_info.new").mkdir()
    assert board.boot() == "done"
    (board.device.conf / "artifact_info.new").rmdir()
    assert board.end_of_story() == "success"
    assert in_place(board) == ("release-2", "release-2")


@pytest.mark.parametrize("counted", [ONE_FILE, pytest.param(MORE, marks=pytest.mark.long)], ids=len)
@pytest.mark.parametrize("content", [GOOD, b"#!/bin/sh\nexit 3\n"], ids=["good", "bad"])
def test_one_file_and_the_power_fails_anywhere(
    field: Field, tmp_path: Path, content: bytes, counted: tuple[str, ...]
) -> None:
    board = one_file(field, counted)
    downloaded(field, make_artifact(tmp_path / "r", payload={"app": content}, payload_type="app"))
    moment = field.keep()
    results = []

    def story(cut: int) -> str:
        field.back_to(moment)
        end = board.hand_off(cut)
        if end == "cut":
            assert board.boot() == "done"
        result = board.end_of_story()
        release = "release-2" if result == "success" else "release-1"
        assert in_place(board) == (release, release), cut
        assert sorted(path.name for path in board.root.glob("app*")) == ["app"]
        results.append(result)
        return end

    assert len(every_cut(story)) > 6
    # Until the new one has proven itself the old one comes back; from then on the new one stays.
    began = results.index("success") if "success" in results else len(results)
    assert set(results[:began]) == {"failure"}
    assert set(results[began:]) == ({"success"} if content == GOOD else set())


def test_one_file_and_the_power_fails_again_at_the_boot(field: Field, tmp_path: Path) -> None:
    board = one_file(field)
    downloaded(field, make_artifact(tmp_path / "r", payload={"app": GOOD}, payload_type="app"))
    # Before it can note that the new one has proven itself: the second of the notes to be moved into place.
    assert board.hand_off(cut=call_of(board, "mv", nth=3)) == "cut"
    moment = field.keep()

    def story(cut: int) -> str:
        field.back_to(moment)
        end = board.boot(cut)
        if end == "cut":
            assert board.boot() == "done"
        assert board.end_of_story() == "failure"
        assert in_place(board) == ("release-1", "release-1")
        return end

    assert len(every_cut(story)) > 3


# --- Debian's mender, standalone ----------------------------------------------------------------------------

MODULE = """\
#!/bin/sh
set -e
cd {root}
case $1 in
NeedsArtifactReboot) cat needs-reboot ;;
SupportsRollback) cat supports-rollback ;;
ArtifactInstall)
    echo >>installs
    [ -e app.old ] || cp app app.old
    cp "$2/files/app" app
    if [ -e cut-inside ]; then
        rm cut-inside
        echo cut >end
        kill -9 -"$(cat group)"
    fi
    ./app
    ;;
ArtifactCommit)
    [ ! -e no-commit ]
    rm -f app.old
    ;;
ArtifactRollback) [ ! -e app.old ] || mv app.old app ;;
esac
"""
"""An update module as an integrator writes one; the update module's own power cut is made in it."""

# What mender has of its own is kept apart from ours, as for a device where the daemon never ran.
MENDER = """\
{world} sh -c 'mount --bind {root}/modules /usr/share/mender/modules/v3; exec {mender} "$@"' mender"""


def mender_client(
    field: Field,
    *,
    reboot: bool = False,
    rollback: bool = True,
    example: str = (EXAMPLES / "mender-client").read_text(),
) -> Board:
    need("mender", "unshare")
    root = field.device.root
    (root / "app").write_text(OLD)
    (root / "app").chmod(0o755)
    (root / "needs-reboot").write_text("Yes" if reboot else "No")
    (root / "supports-rollback").write_text("Yes" if rollback else "No")
    (root / "modules").mkdir()
    (root / "modules/app").write_text(MODULE.format(root=root))
    (root / "modules/app").chmod(0o755)
    program = shlex.join([shutil.which("mender") or "", *mender(field.device)[1:]])
    command = MENDER.format(world=shlex.join(world(field.device)), root=root, mender=program)
    off = shlex.join(["sh", "-c", REBOOT.format(root=root)])
    return Board(field, example, {"mender": command, "mv": "/usr/bin/mv", "reboot": off})


@pytest.mark.real
def test_mender_installs_and_commits(field: Field, tmp_path: Path) -> None:
    board = mender_client(field)
    artifact = make_artifact(
        tmp_path / "r", payload={"app": GOOD}, payload_type="app", provides={"rootfs-image.app.version": "2"}
    )
    downloaded(field, artifact)
    assert board.hand_off() == "done"
    assert board.end_of_story() == "success"
    assert in_place(board) == ("release-2", "release-2")
    # What later artifacts may depend on, because mender-oneshot reads it before a hand-off.
    known = (board.device.conf / "artifact_info").read_text().splitlines()
    assert known == ["artifact_name=release-2", "rootfs-image.app.version=2"]


@pytest.mark.real
def test_mender_goes_on_after_the_boot(field: Field, tmp_path: Path) -> None:
    board = mender_client(field, reboot=True)
    downloaded(field, make_artifact(tmp_path / "r", payload={"app": GOOD}, payload_type="app"))
    assert board.hand_off() == "rebooted"
    # In other hands until the boot is over: a timer that ticks meanwhile asks for nothing.
    asked = len(field.server.requests)
    field.device.ok("run", "--all")
    assert not [seen for seen in field.server.requests[asked:] if seen.path.endswith("/next")]
    assert field.finals() == []
    assert board.boot() == "done"
    assert board.end_of_story() == "success"
    assert in_place(board) == ("release-2", "release-2")


@pytest.mark.real
def test_what_mender_cannot_commit_after_the_boot_is_rolled_back(field: Field, tmp_path: Path) -> None:
    board = mender_client(field, reboot=True)
    (board.root / "no-commit").touch()
    downloaded(field, make_artifact(tmp_path / "r", payload={"app": GOOD}, payload_type="app"))
    assert board.hand_off() == "rebooted"
    # Rolled back while the new one runs: the old one takes one more boot, which finds nothing left to do.
    assert board.boot() == "rebooted"
    assert board.boot() == "done"
    assert not (board.root / "calls").exists()
    assert board.end_of_story() == "failure"
    assert in_place(board) == ("release-1", "release-1")


@pytest.mark.real
def test_what_mender_cannot_install_it_rolls_back(field: Field, tmp_path: Path) -> None:
    board = mender_client(field)
    bad = b"#!/bin/sh\necho not today >&2\nexit 3\n"
    downloaded(field, make_artifact(tmp_path / "r", payload={"app": bad}, payload_type="app"))
    assert board.hand_off() == "done"
    assert board.end_of_story() == "failure"
    assert in_place(board) == ("release-1", "release-1")
    assert "not today" in board.words()


@pytest.mark.real
def test_the_power_fails_while_mender_installs(field: Field, tmp_path: Path) -> None:
    board = mender_client(field)
    (board.root / "cut-inside").touch()
    downloaded(field, make_artifact(tmp_path / "r", payload={"app": GOOD}, payload_type="app"))
    assert board.hand_off() == "cut"
    assert board.boot() == "done"
    assert board.end_of_story() == "success"
    assert in_place(board) == ("release-2", "release-2")


@pytest.mark.real
@pytest.mark.parametrize(
    ("reboot", "rollback"),
    [
        pytest.param(False, True, marks=pytest.mark.long, id="no reboot"),
        pytest.param(True, True, id="reboot"),
        pytest.param(False, False, id="no rollback"),
        pytest.param(True, False, marks=pytest.mark.long, id="reboot, no rollback"),
    ],
)
def test_mender_and_the_power_fails_anywhere(
    field: Field, tmp_path: Path, reboot: bool, rollback: bool
) -> None:
    board = mender_client(field, reboot=reboot, rollback=rollback)
    downloaded(field, make_artifact(tmp_path / "r", payload={"app": GOOD}, payload_type="app"))
    moment = field.keep()
    installs = []

    def running() -> tuple[str, str]:
        path = board.root / "installs"
        installs.append(path.read_text().count("\n") if path.exists() else 0)
        return in_place(board)

    results = every_cut_and_boot(board, lambda: field.back_to(moment), running)
    assert len(results) > 6
    # Only what was cut before the first note is a failure.
    assert results == ["failure"] + ["success"] * (len(results) - 1)
    # What mender has done is not done again.
    assert installs == [0] + [1] * (len(results) - 1)


@pytest.mark.real
@pytest.mark.long
def test_the_power_fails_twice_where_mender_cannot_roll_back(field: Field, tmp_path: Path) -> None:
    board = mender_client(field, rollback=False)
    (board.root / "cut-inside").touch()
    downloaded(field, make_artifact(tmp_path / "r", payload={"app": GOOD}, payload_type="app"))
    assert board.hand_off() == "cut"
    moment = field.keep()
    results = []

    def story(cut: int) -> str:
        field.back_to(moment)
        end = board.boot(cut)
        if end == "cut":
            assert board.boot() == "done"
        results.append(board.end_of_story())
        assert results[-1] == "failure" or in_place(board) == ("release-2", "release-2")
        return end

    every_cut(story)
    # Once begun again, it is not begun a third time; once installed, it is a success.
    assert results.count("failure") == 1


@pytest.mark.real
def test_the_name_of_what_mender_installed_cannot_be_written(field: Field, tmp_path: Path) -> None:
    board = mender_client(field)
    in_the_way = board.device.conf / "artifact_info.new"
    in_the_way.mkdir()
    downloaded(field, make_artifact(tmp_path / "r", payload={"app": GOOD}, payload_type="app"))
    for _ in range(2):
        assert (board.boot() if (board.root / "calls").exists() else board.hand_off()) == "done"
        assert field.finals() == []
    in_the_way.rmdir()
    assert board.boot() == "done"
    assert board.end_of_story() == "success"
    assert in_place(board) == ("release-2", "release-2")


@pytest.mark.real
@pytest.mark.parametrize("rollback", [True, False], ids=["rollback", "no rollback"])
@pytest.mark.parametrize("content", [GOOD, b"#!/bin/sh\nexit 3\n"], ids=["good", "bad"])
@pytest.mark.parametrize("text", small_sub_updaters().values(), ids=small_sub_updaters())
def test_the_small_sub_updaters_have_mender_install(
    field: Field, tmp_path: Path, text: str, content: bytes, rollback: bool
) -> None:
    example = text.replace("/etc/mender", str(field.device.conf))
    board = mender_client(field, rollback=rollback, example=example)
    downloaded(field, make_artifact(tmp_path / "r", payload={"app": content}, payload_type="app"))
    assert board.hand_off() == "done"
    assert board.end_of_story() == ("success" if content == GOOD else "failure")
    name = "release-2" if content == GOOD else "release-1"
    assert board.device.ok("show-artifact").out == f"{name}\n"


# --- RAUC ---------------------------------------------------------------------------------------------------

MANIFEST = """\
[update]
compatible=board
version=release-2
[bundle]
format=plain
[image.rootfs]
filename=rootfs.img
"""

SYSTEM = """\
[system]
compatible=board
bootloader=custom
mountprefix=/run/rauc
bundle-formats=plain
statusfile={root}/rauc.status
[keyring]
path={root}/certificate.pem
[handlers]
bootloader-custom-backend={root}/boot-loader
post-install={root}/post-install
[slot.rootfs.0]
device={root}/slot-A
type=raw
bootname=A
[slot.rootfs.1]
device={root}/slot-B
type=raw
bootname=B
"""

POST_INSTALL = """\
#!/bin/sh
cd {root}
cp primary activated
[ ! -e no-post-install ]
"""
"""Comes when RAUC has activated the new slot."""

BOOT_LOADER = """\
#!/bin/sh
set -e
cd {root}
case $1 in
get-primary) cat primary ;;
set-primary) echo "$2" >primary && echo good >"state-$2" ;;
get-state) cat "state-$2" ;;
set-state)
    [ ! -e cannot-be-told ]
    echo "$3" >"state-$2"
    if [ -e cut-inside ]; then
        mv cut-inside inside
        exec sleep 1000
    fi
    ;;
*) exit 1 ;;
esac
"""
"""A boot loader of files, in the place of U-Boot's or GRUB's variables (RAUC: bootloader-custom-backend)."""

RAUC_BUS = """\
<busconfig>
  <type>session</type>
  <listen>unix:path={root}/bus</listen>
  <policy context="default">
    <allow own="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
  </policy>
</busconfig>
"""

SERVICE = """\
mount -t tmpfs run /run
mkdir -p /etc/rauc
mount -t tmpfs rauc /etc/rauc
cp {root}/system.conf /etc/rauc/
sed "s/$/ rauc.slot=$1/" /proc/cmdline >/run/cmdline
mount --bind /run/cmdline /proc/cmdline
export DBUS_SYSTEM_BUS_ADDRESS=unix:path={root}/bus
dbus-run-session --config-file {root}/bus.conf -- rauc service &
read -r end
"""
"""RAUC's service as systemd starts it on a board that has booted slot $1, until its standard input ends."""


class RaucBoard(Board):
    """A board with two slots, booted from one of them, on which RAUC's service runs."""

    def __init__(self, field: Field) -> None:
        need("rauc", "dbus-run-session", "unshare", "openssl", "mksquashfs", "mender-artifact")
        root = field.device.root
        off = shlex.join(["sh", "-c", REBOOT.format(root=root)])
        programs = {"rauc": shutil.which("rauc") or "", "mv": "/usr/bin/mv", "reboot": off}
        super().__init__(field, (EXAMPLES / "rauc").read_text(), programs)
        self.device.environment["DBUS_SYSTEM_BUS_ADDRESS"] = f"unix:path={root}/bus"
        for name, text in {
            "system.conf": SYSTEM,
            "bus.conf": RAUC_BUS,
            "boot-loader": BOOT_LOADER,
            "post-install": POST_INSTALL,
        }.items():
            self._program(name, text.format(root=root))
        for slot in "AB":
            (root / f"state-{slot}").write_text("good\n")
            (root / f"slot-{slot}").write_bytes(b"release-1".ljust(1 << 20, b"\0"))
        (root / "primary").write_text("A\n")
        self.bad_slot = ""
        self._service: subprocess.Popen[bytes] | None = None

    def power_up(self) -> None:
        """Boot the slot that the boot loader picks; it comes back from a slot that is bad."""
        self.power_off()
        slot = (self.root / "primary").read_text().strip()
        if slot == self.bad_slot or (self.root / f"state-{slot}").read_text() == "bad\n":
            slot = "A" if slot == "B" else "B"
        self.slot = slot
        self._service = subprocess.Popen(
            [
                *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
                *("sh", "-euc", SERVICE.format(root=self.root), "sh", slot),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        ask = ["rauc", "status"]
        until(lambda: not subprocess.run(ask, env=self.device.env(), capture_output=True).returncode, "RAUC")

    def power_off(self) -> None:
        """End the service, with all that it started."""
        if self._service and self._service.stdin:
            self._service.stdin.close()
            self._service.kill()
            self._service.wait()
        self._service = None
        (self.root / "bus").unlink(missing_ok=True)

    def boot(self, cut: int = 0) -> str:
        """Boot, and call the sub-updater."""
        self.power_up()
        return super().boot(cut)

    def running(self) -> tuple[str, str]:
        """The release in the slot that is booted, and what artifact_info says."""
        content = (self.root / f"slot-{self.slot}").read_bytes().rstrip(b"\0")
        return content.decode(), self.device.ok("show-artifact").out.strip()


@pytest.fixture
def rauc_board(field: Field) -> Iterator[RaucBoard]:
    made = RaucBoard(field)
    try:
        made.power_up()
        yield made
    finally:
        made.power_off()


@pytest.fixture
def rauc_artifact(rauc_board: RaucBoard, tmp_path: Path) -> Path:
    """A bundle signed for the board, in an artifact made by mender-artifact."""

    def do(*words: str) -> None:
        subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)

    certificate = rauc_board.root / "certificate.pem"
    do(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=release"),
        *("-keyout", "key.pem", "-out", str(certificate)),
    )
    (tmp_path / "content").mkdir()
    (tmp_path / "content/manifest.raucm").write_text(MANIFEST)
    (tmp_path / "content/rootfs.img").write_bytes(b"release-2".ljust(4096, b"\0"))
    do("rauc", "--cert", str(certificate), "--key", "key.pem", "bundle", "content", "update.raucb")
    do(
        *("mender-artifact", "write", "module-image", "-T", "rauc-bundle", "-t", "board", "-n", "release-2"),
        *("-f", "update.raucb", "--compression", "none", "-o", "release-2.mender"),
    )
    return tmp_path / "release-2.mender"


@pytest.mark.real
def test_rauc_installs_and_the_new_slot_reports(rauc_board: RaucBoard, rauc_artifact: Path) -> None:
    downloaded(rauc_board.field, rauc_artifact)
    assert rauc_board.hand_off() == "rebooted"
    assert rauc_board.running() == ("release-1", "release-1")
    assert rauc_board.boot() == "done"
    assert rauc_board.end_of_story() == "success"
    assert rauc_board.slot == "B"
    assert rauc_board.running() == ("release-2", "release-2")
    assert (rauc_board.root / "state-B").read_text() == "good\n"


@pytest.mark.real
def test_rauc_and_a_new_slot_that_does_not_come_up(rauc_board: RaucBoard, rauc_artifact: Path) -> None:
    downloaded(rauc_board.field, rauc_artifact)
    assert rauc_board.hand_off() == "rebooted"
    rauc_board.bad_slot = "B"
    assert rauc_board.boot() == "done"
    assert rauc_board.end_of_story() == "failure"
    assert rauc_board.running() == ("release-1", "release-1")
    # What was said before the boot, and what after it.
    assert "Updating slots" in rauc_board.words()
    assert "activated slot rootfs.0" in rauc_board.words()
    # Nor does the next boot try it again.
    assert (rauc_board.root / "primary").read_text() == "A\n"


@pytest.mark.real
def test_rauc_fails_when_it_has_activated_the_new_slot(rauc_board: RaucBoard, rauc_artifact: Path) -> None:
    (rauc_board.root / "no-post-install").touch()
    downloaded(rauc_board.field, rauc_artifact)
    assert rauc_board.hand_off() == "done"
    assert (rauc_board.root / "activated").read_text() == "B\n"
    assert (rauc_board.root / "primary").read_text() == "A\n"
    assert rauc_board.end_of_story() == "failure"
    rauc_board.power_up()
    assert rauc_board.running() == ("release-1", "release-1")


@pytest.mark.real
@pytest.mark.parametrize("what", ["cannot-be-told", "etc/artifact_info.new"], ids=["good", "its name"])
def test_rauc_and_a_new_slot_of_which_something_cannot_be_written_down(
    rauc_board: RaucBoard, rauc_artifact: Path, what: str
) -> None:
    downloaded(rauc_board.field, rauc_artifact)
    assert rauc_board.hand_off() == "rebooted"
    in_the_way = rauc_board.root / what
    in_the_way.mkdir()
    assert rauc_board.boot() == "done"
    assert rauc_board.field.finals() == []
    in_the_way.rmdir()
    assert rauc_board.boot() == "done"
    assert rauc_board.end_of_story() == "success"
    assert rauc_board.running() == ("release-2", "release-2")


@pytest.mark.real
def test_rauc_and_a_new_slot_that_brings_its_name_along(rauc_board: RaucBoard, rauc_artifact: Path) -> None:
    downloaded(rauc_board.field, rauc_artifact)
    assert rauc_board.hand_off() == "rebooted"
    known = "artifact_name=release-2\nrootfs-image.checksum=02\n"
    (rauc_board.device.conf / "artifact_info").write_text(known)
    (rauc_board.device.conf / "artifact_info.new").mkdir()
    assert rauc_board.boot() == "done"
    assert rauc_board.end_of_story() == "success"
    assert (rauc_board.device.conf / "artifact_info").read_text() == known


@pytest.mark.real
def test_rauc_refuses_a_bundle_of_a_stranger(rauc_board: RaucBoard, rauc_artifact: Path) -> None:
    certificate = rauc_board.root / "certificate.pem"
    stranger = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=stranger")
    subprocess.run([*stranger, "-keyout", "/dev/null", "-out", certificate], check=True, capture_output=True)
    downloaded(rauc_board.field, rauc_artifact)
    assert rauc_board.hand_off() == "done"
    assert rauc_board.end_of_story() == "failure"
    assert "signature verification failed" in rauc_board.words()
    assert rauc_board.running() == ("release-1", "release-1")


@pytest.mark.real
def test_rauc_without_its_service_is_a_failure(rauc_board: RaucBoard, rauc_artifact: Path) -> None:
    downloaded(rauc_board.field, rauc_artifact)
    rauc_board.power_off()
    assert rauc_board.hand_off() == "done"
    assert rauc_board.end_of_story() == "failure"
    assert "D-Bus" in rauc_board.words()


@pytest.mark.real
def test_the_power_fails_while_rauc_installs(rauc_board: RaucBoard, rauc_artifact: Path) -> None:
    downloaded(rauc_board.field, rauc_artifact)
    (rauc_board.root / "cut-inside").touch()
    rauc_board._fresh(0)
    rauc_board.device.ok("install")
    until((rauc_board.root / "inside").exists, "RAUC begins with the other slot")
    # First the one that would notice the end of the other.
    os.killpg(int((rauc_board.root / "group").read_text()), signal.SIGKILL)
    rauc_board.power_off()
    assert rauc_board.boot() == "rebooted"
    assert rauc_board.boot() == "done"
    assert rauc_board.end_of_story() == "success"
    assert rauc_board.running() == ("release-2", "release-2")


@pytest.mark.real
def test_rauc_and_the_power_fails_anywhere(rauc_board: RaucBoard, rauc_artifact: Path) -> None:
    downloaded(rauc_board.field, rauc_artifact)
    rauc_board.power_off()
    moment = rauc_board.field.keep()

    def begin() -> None:
        rauc_board.power_off()
        rauc_board.field.back_to(moment)
        rauc_board.power_up()

    results = every_cut_and_boot(rauc_board, begin, rauc_board.running)
    assert len(results) > 8
    assert results == ["failure"] * results.count("failure") + ["success"] * results.count("success")
    # Before RAUC begins: reading the slot, and the first note.
    assert results.count("failure") == 2
