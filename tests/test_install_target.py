"""`make install` and `make uninstall`: what a device, or a packager, gets."""

import marshal
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

import pytest
from helpers.device import REPO, Device, need_libraries
from helpers.documents import broken_links

from mender_oneshot import __version__

DEBIAN = "/usr/bin/python3"


def make(
    target: str,
    destination: Path | str,
    *variables: str,
    tree: Path = REPO,
    wrapper: tuple[str, ...] = (),
    path: str = "/usr/sbin:/usr/bin:/sbin:/bin",
) -> subprocess.CompletedProcess[str]:
    """Run make as a packager does, with no variables of ours in the environment."""
    done = subprocess.run(
        [*wrapper, "make", "-s", "-C", tree, target, f"DESTDIR={destination}", *variables],
        env={"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done


def files(root: Path) -> dict[str, int]:
    """The files below a directory, and their modes."""
    return {
        f"/{path.relative_to(root)}": stat.S_IMODE(path.lstat().st_mode)
        for path in sorted(root.rglob("*"))
        if not path.is_dir()
    }


def directories(root: Path) -> dict[str, int]:
    return {
        f"/{path.relative_to(root)}": stat.S_IMODE(path.stat().st_mode)
        for path in [root, *root.rglob("*")]
        if path.is_dir()
    }


def run(root: Path, *words: str, prefix: str = "/usr/local") -> subprocess.CompletedProcess[str]:
    """Start the installed program, in a directory and an environment that are not its own."""
    launcher = root / f"{prefix[1:]}/bin/mender-oneshot"
    lines = launcher.read_text().splitlines()
    # A launcher knows where its files will lie, not where DESTDIR was.
    moved = launcher.with_name("moved")
    moved.write_text("\n".join(lines).replace(f'"{prefix}/share', f'"{root}{prefix}/share'))
    moved.chmod(0o755)
    try:
        return subprocess.run(
            [moved, *words],
            cwd="/",
            env={
                "MENDER_DATASTORE_DIR": f"{root}/var",
                "MENDER_CONF_DIR": f"{root}/conf",
                "PYTHONPATH": "/nowhere",
            },
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        moved.unlink()


def test_the_installed_program_runs(tmp_path: Path, python: str) -> None:
    make("install", tmp_path, f"PYTHON={python}")
    assert run(tmp_path, "--version").stdout == f"mender-oneshot {__version__}\n"
    done = run(tmp_path, "check-update")
    assert done.returncode == 78
    assert "No server is configured" in done.stderr


@pytest.mark.real
def test_by_default_it_is_for_the_python_of_the_system(tmp_path: Path) -> None:
    make("install", tmp_path)
    launcher = (tmp_path / "usr/local/bin/mender-oneshot").read_text()
    assert launcher.splitlines()[0] == f"#!{DEBIAN} -ISXutf8"
    assert str(tmp_path) not in launcher


def test_what_is_installed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    make("install", root, f"PYTHON={sys.executable}")
    found = files(root)
    executable = {path for path, mode in found.items() if mode != 0o644}
    scripts = {path for path in found if "/device_scripts/" in path}
    assert len(scripts) == 5
    assert executable == {"/usr/local/bin/mender-oneshot"} | scripts
    assert found["/usr/local/bin/mender-oneshot"] == 0o755
    assert set(directories(root).values()) == {0o755}
    share = "/usr/local/share"
    modules = {path for path in found if path.startswith(f"{share}/mender-oneshot/mender_oneshot/")} - scripts
    sources = {path for path in modules if path.endswith(".py")}
    assert len(modules) == 2 * len(sources) > 60
    assert not [path for path in modules if "devserver" in path]
    assert {path for path in found if path.startswith("/etc")} == {
        "/etc/cron.d/mender-oneshot",
        "/etc/fish/completions/mender-oneshot.fish",
    }
    assert {
        "/usr/local/lib/systemd/system/mender-oneshot-update.timer",
        "/usr/local/lib/systemd/system/mender-oneshot-update.service",
        f"{share}/bash-completion/completions/mender-oneshot",
        f"{share}/zsh/site-functions/_mender-oneshot",
        f"{share}/doc/mender-oneshot/README.md",
        f"{share}/doc/mender-oneshot/LICENSE",
    } < set(found)
    size = sum((root / path[1:]).stat().st_size for path in found)
    byte_code = sum((root / path[1:]).stat().st_size for path in found if path.endswith(".pyc"))
    print(f"{len(found)} files, {size / 1024:.0f} KiB, of these {byte_code / 1024:.0f} KiB byte-code")


def test_each_link_of_the_installed_documents_leads_to_an_installed_one(tmp_path: Path) -> None:
    make("install", tmp_path, "COMPILE=no")
    pages = sorted((tmp_path / "usr/local/share/doc/mender-oneshot").rglob("*.md"))
    assert {"README.md", "first-update.md", "troubleshooting.md", "json.md"} < {page.name for page in pages}
    assert {str(page): broken_links(page) for page in pages if broken_links(page)} == {}
    assert "](docs/install.md)" in pages[0].parent.joinpath("README.md").read_text()


PARTS = {
    "systemd": "/systemd/",
    "cron": "cron",
    "man": "/man/",
    "doc": "/doc/",
    "bash": "/bash-completion/",
    "zsh": "/zsh/",
    "fish": "/fish/",
}
"""The parts that can be left out, and what only their paths contain."""


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_the_device_has_no_use_for_is_left_out(tmp_path: Path, part: str) -> None:
    make("install", tmp_path / "all", "COMPILE=no")
    make("install", tmp_path / "less", "COMPILE=no", f"WITHOUT={part}")
    everything, less = files(tmp_path / "all"), files(tmp_path / "less")
    left_out = set(everything) - set(less)
    assert left_out
    assert all(PARTS[part] in path for path in left_out)
    assert not [path for path in less if PARTS[part] in path and "/doc/" not in path]


def test_several_parts_are_left_out_and_an_unknown_one_is_an_error(tmp_path: Path) -> None:
    make("install", tmp_path, "COMPILE=no", f"WITHOUT={' '.join(PARTS)}")
    assert all("/mender_oneshot/" in path or path.endswith("/bin/mender-oneshot") for path in files(tmp_path))
    done = subprocess.run(
        ["make", "-s", "-C", REPO, "install", f"DESTDIR={tmp_path}/other", "COMPILE=no", "WITHOUT=docs"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "WITHOUT=docs is not known" in done.stderr
    assert not (tmp_path / "other").exists()


def test_every_module_is_installed(tmp_path: Path) -> None:
    """What the wheel has, without the development server and what only documents and tests need."""
    make("install", tmp_path, "COMPILE=no")
    package = REPO / "mender_oneshot"
    wanted = {str(path.relative_to(REPO)) for path in package.rglob("*.py") if "devserver" not in path.parts}
    wanted -= {"mender_oneshot/json_schema.py", "mender_oneshot/json_members.py"}
    share = tmp_path / "usr/local/share/mender-oneshot"
    assert {str(path.relative_to(share)) for path in share.rglob("*.py")} == wanted


def code_of(path: Path) -> tuple[int, CodeType]:
    """The flags of a `.pyc`, and its code (PEP 552: magic, flags, then eight bytes)."""
    content = path.read_bytes()
    code = marshal.loads(content[16:])
    assert isinstance(code, CodeType)
    return int.from_bytes(content[4:8], "little"), code


def test_the_byte_code_is_for_the_place_where_it_will_lie(tmp_path: Path) -> None:
    make("install", tmp_path, f"PYTHON={sys.executable}", "PREFIX=/usr")
    compiled = list(tmp_path.rglob("*.pyc"))
    assert compiled
    for path in compiled:
        flags, code = code_of(path)
        assert flags == 0b01  # by hash, and not checked at each start: an image has no times to trust
        assert code.co_filename.startswith("/usr/share/mender-oneshot/mender_oneshot/")


def test_the_byte_code_can_be_left_to_the_packager(tmp_path: Path) -> None:
    make("install", tmp_path, "COMPILE=no", "PYTHON=/opt/python/bin/python3")
    assert not list(tmp_path.rglob("*.pyc"))
    assert (
        (tmp_path / "usr/local/bin/mender-oneshot")
        .read_text()
        .startswith("#!/opt/python/bin/python3 -ISXutf8\n")
    )


def test_a_python_that_is_too_old_is_refused(tmp_path: Path) -> None:
    old = tmp_path / "python3.10"
    old.write_text(f'#!/bin/sh\nexec {sys.executable} -I -c "import sys; sys.version_info = (3, 10); $3"\n')
    old.chmod(0o755)
    done = subprocess.run(
        ["make", "-s", "-C", REPO, "install", f"DESTDIR={tmp_path}/root", f"COMPILE={old}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("Python 3.11 or newer is needed; ")
    assert not (tmp_path / "root/usr/local/bin").exists()


def test_the_paths_are_the_packagers(tmp_path: Path) -> None:
    make(
        "install",
        tmp_path,
        "COMPILE=no",
        "PREFIX=/opt/m",
        "SYSCONFDIR=/opt/etc",
        "UNITDIR=/lib/systemd/system",
    )
    found = files(tmp_path)
    assert not [
        path for path in found if not path.startswith(("/opt/m/", "/opt/etc/", "/lib/systemd/system/"))
    ]
    texts = [(tmp_path / path[1:]).read_text() for path in found if path.startswith(("/lib/", "/opt/etc/"))]
    assert not [text for text in texts if "/usr/local/bin/mender-oneshot" in text]
    assert [text for text in texts if "/opt/m/bin/mender-oneshot" in text]


def test_a_second_installation_goes_over_the_first(tmp_path: Path) -> None:
    make("install", tmp_path, f"PYTHON={sys.executable}")
    first = files(tmp_path)
    package = tmp_path / "usr/local/share/mender-oneshot/mender_oneshot"
    (package / "gone.py").write_text("# a module that the next version has no more\n")
    (package / "plan.py").write_text("# an older one\n")
    make("install", tmp_path, f"PYTHON={sys.executable}")
    assert files(tmp_path) == first
    assert (package / "plan.py").read_text() == (REPO / "mender_oneshot/plan.py").read_text()


def on_a_device(root: Path) -> tuple[str, ...]:
    """The variables of an installation that is not into an image."""
    return (f"PREFIX={root}/usr", f"SYSCONFDIR={root}/etc", f"PYTHON={sys.executable}")


LOOKS = """\
#!/bin/sh
look() {{
    said=$({root}/usr/bin/mender-oneshot --version </dev/null 2>&1)
    echo "$? $said" >>{root}/seen
}}
case $* in
*/mender_oneshot/*.py) exec /usr/bin/{name} "$@" ;; # they are many
esac
look
/usr/bin/{name} "$@"
code=$?
look
exit $code
"""
"""One of the programs that `make install` calls; before and after its work it starts the installed program.

By a shell, as cron does: that takes an empty file for a script that ends well.
"""


def test_at_every_step_of_an_installation_the_program_is_whole(tmp_path: Path) -> None:
    make("install", "", *on_a_device(tmp_path))
    programs = tmp_path / "looks"
    programs.mkdir()
    for name in ("cat", "install", "mv", "rm", "rmdir"):
        (programs / name).write_text(LOOKS.format(root=tmp_path, name=name))
        (programs / name).chmod(0o755)
    make("install", "", *on_a_device(tmp_path), path=f"{programs}:/usr/bin:/bin")
    seen = (tmp_path / "seen").read_text().splitlines()
    assert set(seen) == {f"0 mender-oneshot {__version__}"}
    assert len(seen) > 50


@pytest.mark.parametrize("name", ["cat", "install", "mv", "rm", "sed"])
def test_a_failing_program_fails_the_installation(tmp_path: Path, name: str) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / name).write_text("#!/bin/sh\nexit 1\n")
    (programs / name).chmod(0o755)
    done = subprocess.run(
        ["make", "-s", "-C", REPO, "install", f"DESTDIR={tmp_path}/root", "COMPILE=no"],
        env={"PATH": f"{programs}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    empty = [path for path in (tmp_path / "root").rglob("*.service") if not path.stat().st_size]
    assert not empty


class Ticks:
    """A timer that starts the installed program as soon as it has ended, and what came of each start."""

    def __init__(self, root: Path) -> None:
        self._launcher = root / "usr/bin/mender-oneshot"
        self._device = Device(root / "device", sys.executable)
        self._device.configure(ServerURL="https://127.0.0.1:9")
        self.ends: list[tuple[int, str]] = []
        self._ended = threading.Condition()
        self._over = False
        self._thread = threading.Thread(target=self._tick)

    def __enter__(self) -> "Ticks":
        self._thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._over = True
        self._thread.join()

    def _tick(self) -> None:
        while not self._over:
            done = subprocess.run(
                ["sh", "-c", '"$0" auth', self._launcher],
                env=self._device.env(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            with self._ended:
                self.ends.append((done.returncode, done.stdout + done.stderr))
                self._ended.notify()

    def wait_for_more(self) -> None:
        """Wait until what is at work now has ended."""
        with self._ended:
            before = len(self.ends)
            assert self._ended.wait_for(lambda: len(self.ends) > before, 60)


def test_a_timer_that_ticks_meanwhile_finds_one_version_or_the_other(tmp_path: Path) -> None:
    make("install", "", *on_a_device(tmp_path))
    with Ticks(tmp_path) as ticks:
        for _ in range(5):
            make("install", "", *on_a_device(tmp_path))
            ticks.wait_for_more()
    assert len(ticks.ends) > 5
    assert set(ticks.ends) == {
        (75, "No answer from 127.0.0.1:9: Connection refused; the next run will retry.\n")
    }
    print(f"{len(ticks.ends)} ticks")


def test_a_device_keeps_two_versions_and_no_more(tmp_path: Path) -> None:
    def install_and_look() -> tuple[dict[str, int], str]:
        make("install", "", *on_a_device(tmp_path))
        return files(tmp_path), (tmp_path / "usr/bin/mender-oneshot").read_text()

    _, first = install_and_look()
    both, second = install_and_look()
    assert first != second
    share = tmp_path / "usr/share/mender-oneshot"
    (share / "mender_oneshot/gone.py").write_text("# a module that the next version has no more\n")
    assert install_and_look() == (both, first)
    assert install_and_look() == (both, second)
    assert (
        "device key and the state in /var/lib/mender" in make("uninstall", "", *on_a_device(tmp_path)).stdout
    )
    assert files(tmp_path) == {}


def test_a_cron_line_that_was_enabled_stays(tmp_path: Path) -> None:
    line = "* * * * * root mender-oneshot run --all\n"
    crontab = tmp_path / "etc/cron.d/mender-oneshot"
    crontab.parent.mkdir(parents=True)
    crontab.write_text(line)
    assert "left as it is" in make("install", tmp_path, "COMPILE=no").stdout
    assert crontab.read_text() == line


def test_directories_of_others_keep_their_mode(tmp_path: Path) -> None:
    """Debian's /usr/local/bin belongs to the group staff, which may write there."""
    shared = tmp_path / "usr/local/bin"
    shared.mkdir(parents=True)
    shared.chmod(0o2775)
    make("install", tmp_path, "COMPILE=no")
    assert stat.S_IMODE(shared.stat().st_mode) == 0o2775


def test_uninstall_leaves_nothing(tmp_path: Path) -> None:
    other = tmp_path / "usr/local/bin/other"
    other.parent.mkdir(parents=True)
    other.touch()
    make("install", tmp_path, f"PYTHON={sys.executable}")
    make("uninstall", tmp_path)
    assert set(files(tmp_path)) == {"/usr/local/bin/other"}
    assert not [path for path in directories(tmp_path) if "mender" in path]
    make("uninstall", tmp_path)


@pytest.fixture
def for_anybody() -> Iterator[Path]:
    """A directory, and a copy of the tree in it, that every user may write to."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        shutil.copytree(
            REPO, place / "tree", ignore=shutil.ignore_patterns(".*", "tests", "build", "dist", "__pycache__")
        )
        if os.geteuid() == 0:
            for path in [place, *place.rglob("*")]:
                os.chown(path, 65534, 65534)
        yield place


@pytest.mark.real
def test_a_person_who_is_not_root_can_make_a_package(for_anybody: Path) -> None:
    need_libraries(DEBIAN)
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    make(
        "install",
        for_anybody / "root",
        tree=for_anybody / "tree",
        wrapper=nobody if os.geteuid() == 0 else (),
    )
    assert run(for_anybody / "root", "--version").stdout == f"mender-oneshot {__version__}\n"


def test_an_umask_that_hides_everything_hides_nothing(tmp_path: Path) -> None:
    root = tmp_path / "root"
    make("install", root, f"PYTHON={sys.executable}", wrapper=("sh", "-c", 'umask 077; exec "$@"', "sh"))
    assert set(files(root).values()) == {0o644, 0o755}
    assert set(directories(root).values()) == {0o755}
