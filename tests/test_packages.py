"""The Debian package: built, checked, and its whole life in a Debian 12. Facts of the other recipes."""

import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.debian import need_root, system
from helpers.device import REPO, Device
from helpers.documents import broken_links
from helpers.machine import Machine

from mender_oneshot import __version__, paths

PACKAGING = REPO / "docs" / "packaging"
RECIPE = next((PACKAGING / "yocto").glob("*.bb"))
NEXT = "99.0"


def tell(*words: object) -> str:
    """Run a program that has to end well, and return what it said."""
    done = subprocess.run(
        [str(word) for word in words],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make deb` builds, in a copy of the tree."""
    missing = [
        name for name in ("dpkg-buildpackage", "dh", "dh_python3", "lintian") if not shutil.which(name)
    ]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    tree = tmp_path_factory.mktemp("package") / "tree"
    skip = shutil.ignore_patterns(".*", "tests", "build", "dist", "__pycache__")
    shutil.copytree(REPO, tree, ignore=skip, symlinks=True)
    tell("make", "-s", "-C", tree, "deb")
    (built,) = (tree / "dist").glob("mender-oneshot_*.deb")
    return built


@pytest.fixture(scope="module")
def next_package(package: Path) -> Path:
    """The same under a higher version, with one module less and one more."""
    tree = package.with_name("next")
    tell("dpkg-deb", "--raw-extract", package, tree)
    control = tree / "DEBIAN" / "control"
    control.write_text(control.read_text().replace(f"Version: {__version__}", f"Version: {NEXT}"))
    modules = tree / "usr/share/mender-oneshot/mender_oneshot"
    (modules / "resume.py").rename(modules / "added.py")
    built = package.with_name("next.deb")
    tell("dpkg-deb", "--root-owner-group", "--build", tree, built)
    return built


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A Debian 12 with the libraries, and nothing of ours."""
    need_root()
    with system(tmp_path) as made:
        yield made


def inside(root: Path, *words: str) -> str:
    """Run a program in the other Debian, which needs a /proc for it."""
    with_proc = 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'
    return tell("unshare", "--mount", "sh", "-c", with_proc, root, *words)


def install(root: Path, package: Path) -> str:
    shutil.copy(package, root / "tmp")
    return inside(root, "dpkg", "--install", f"/tmp/{package.name}")


def status(root: Path) -> str:
    return inside(root, "dpkg-query", "--show", "--showformat=${db:Status-Status}", "mender-oneshot")


def ours(root: Path) -> set[str]:
    """The files below the places where packages put them that have our name in their path."""
    places = [root / name for name in ("etc", "usr", "var/lib/systemd")]
    return {
        str(path.relative_to(root)) for place in places for path in place.rglob("*") if "mender" in str(path)
    }


def test_the_version_is_the_programs() -> None:
    """In every recipe, and in the log of changes."""
    found = {
        path: re.findall(pattern, (REPO / "docs" / path).read_text(), re.MULTILINE)[0]
        for path, pattern in {
            "packaging/debian/changelog": r"\Amender-oneshot \((.+)\) ",
            "packaging/buildroot/package/mender-oneshot/mender-oneshot.mk": r"_VERSION = (.+)$",
            "changelog.md": r"^## (\d\S*)",
        }.items()
    }
    assert set(found.values()) == {__version__}, found
    assert RECIPE.name == f"mender-oneshot_{__version__}.bb"


@pytest.fixture(scope="module")
def devserver_package(package: Path) -> Path:
    """The other package that `make deb` builds."""
    (built,) = package.parent.glob("mender-oneshot-devserver_*.deb")
    return built


@pytest.mark.real
def test_the_development_server_has_a_package_without_the_client(devserver_package: Path) -> None:
    names = tell("dpkg-deb", "--contents", devserver_package)
    assert "/usr/bin/mender-oneshot-devserver\n" in names
    assert "/devserver/server.py\n" in names
    assert "/usr/share/bash-completion/completions/mender-oneshot-devserver\n" in names
    assert "/usr/share/zsh/vendor-completions/_mender-oneshot-devserver\n" in names
    assert "/usr/share/fish/vendor_completions.d/mender-oneshot-devserver.fish\n" in names
    assert "/devserver/web/xterm.mjs\n" in names
    assert "/devserver/web/LICENSE.xterm\n" in names
    assert "/usr/share/man/man1/mender-oneshot-devserver.1.gz\n" in names
    assert "/mender_oneshot/app.py" not in names
    assert "python3-click" in tell("dpkg-deb", "--field", devserver_package, "Depends")


@pytest.mark.real
@pytest.mark.parametrize("which", ["package", "devserver_package"])
def test_lintian_has_nothing_to_say(which: str, request: pytest.FixtureRequest) -> None:
    package: Path = request.getfixturevalue(which)
    done = subprocess.run(
        [
            "lintian",
            "--pedantic",
            "--display-experimental",
            "--fail-on",
            "error,warning,info,pedantic",
            package,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.real
def test_it_is_for_every_machine_and_brings_no_byte_code(package: Path) -> None:
    said = tell("dpkg-deb", "--field", package, "Architecture", "Depends", "Installed-Size")
    assert "Architecture: all\n" in said
    for library in ("python3:any (>= 3.11~)", "python3-click", "python3-cryptography", "python3-urllib3"):
        assert library in said
    names = tell("dpkg-deb", "--contents", package)
    assert ".pyc" not in names
    assert "/devserver/" not in names
    print(f"{package.stat().st_size / 1024:.0f} KiB", said)


@pytest.mark.real
def test_built_twice_it_is_the_same(package: Path) -> None:
    before = package.read_bytes()
    tell("make", "-s", "-C", package.parent.parent, "deb")
    assert package.read_bytes() == before


OURS = [
    paths.STATE,
    f"{paths.STATE}.new",
    f"{paths.STATE}.unreadable",
    paths.LOCK,
    paths.UPDATE_LOCK,
    paths.PART,
    paths.ARTIFACT,
    paths.SUB_UPDATER_LOG,
    paths.DEPLOYMENT_LOG,
    paths.TERMINAL_LOCK,
    paths.HISTORY,
    paths.INSTALLER,
    paths.INSTALLER_LOCK,
    paths.INSTALLER_RESERVE,
    paths.MODULE_PROCESS,
    paths.STORED_PROVIDES,
    paths.BY_HAND_ARTIFACT,
    paths.PROVIDES,
]
OUR_DIRECTORIES = [paths.HISTORY_LOGS, paths.ARTIFACT_SCRIPTS, paths.MODULE_TREE]


@pytest.mark.real
def test_installed_upgraded_removed_purged(root: Path, package: Path, next_package: Path) -> None:
    bare = ours(root)
    said = install(root, package)
    assert "warning" not in said
    assert "unit" not in said
    documents = (root / "usr/share/doc/mender-oneshot").rglob("*.md")
    assert [link for page in documents for link in broken_links(page)] == []
    assert status(root) == "installed"
    assert inside(root, "mender-oneshot", "--version") == f"mender-oneshot {__version__}\n"
    modules = root / "usr/share/mender-oneshot/mender_oneshot"
    assert len(list(modules.rglob("*.pyc"))) == len(list(modules.rglob("*.py"))) > 30
    # Nothing runs by itself.
    assert not [path for path in ours(root) if path.startswith("etc/systemd")]
    cron = root / "etc/cron.d/mender-oneshot"
    assert not [line for line in cron.read_text().splitlines() if "mender-oneshot" in line and line[0] != "#"]
    assert not (root / "var/lib/mender").exists()

    # An integrator makes it run, and a device lives.
    cron.write_text(cron.read_text().replace("#* * * * *", "* * * * *"))
    enabled = cron.read_text()
    inside(root, "systemctl", "enable", "mender-oneshot-update.timer")
    inside(root, "mender-oneshot", "bootstrap")
    data = root / "var/lib/mender"
    key = (data / "mender-agent.pem").read_bytes()
    for name in OURS:
        (data / name).touch()
    for name in OUR_DIRECTORIES:
        (data / name).mkdir(parents=True)
        (data / name / "file").touch()

    said = install(root, next_package)
    assert "warning" not in said
    assert "conffile" not in said
    assert cron.read_text() == enabled
    assert inside(root, "systemctl", "is-enabled", "mender-oneshot-update.timer") == "enabled\n"
    assert not list(modules.glob("resume.py")) + list(modules.glob("__pycache__/resume.*"))
    assert len(list(modules.rglob("*added*"))) == 2
    assert set(OURS) < {path.name for path in data.iterdir()}

    assert "warning" not in inside(root, "dpkg", "--remove", "mender-oneshot")
    assert status(root) == "config-files"
    assert not modules.parent.exists()
    assert cron.exists()
    assert set(OURS) < {path.name for path in data.iterdir()}

    said = inside(root, "dpkg", "--purge", "mender-oneshot")
    assert ours(root) == bare
    # Who the device is stays.
    assert {path.name for path in data.iterdir()} == {"mender-agent.pem"}
    assert (data / "mender-agent.pem").read_bytes() == key


@pytest.mark.real
def test_a_purge_keeps_the_identity_and_what_is_not_ours(root: Path, package: Path) -> None:
    install(root, package)
    data = root / "var/lib/mender"
    data.mkdir()
    kept = {
        "mender-agent.pem": "key",
        "device_type": "device_type=board",
        "mender.conf": "{}",
        paths.LOCK: "list",
    }
    for name, text in kept.items():
        (data / name).write_text(text)
    inside(root, "dpkg", "--purge", "mender-oneshot")
    assert {path.name: path.read_text() for path in data.iterdir()} == kept


@pytest.mark.real
def test_a_purge_takes_an_empty_data_directory_along(root: Path, package: Path) -> None:
    install(root, package)
    (root / "var/lib/mender").mkdir()
    (root / "var/lib/mender" / paths.LOCK).write_text("string")
    inside(root, "dpkg", "--purge", "mender-oneshot")
    assert not (root / "var/lib/mender").exists()


@pytest.mark.real
def test_under_a_running_systemd_an_upgrade_keeps_the_timers_as_they_were(
    root: Path, package: Path, next_package: Path, tmp_path: Path
) -> None:
    for file in (package, next_package):
        shutil.copy(file, root / "opt")  # systemd empties /tmp
    timers = ("mender-oneshot-inventory.timer", "mender-oneshot-update.timer")
    with Machine(root, tmp_path / "console.log") as machine:

        def states() -> list[str]:
            return machine.run("systemctl", "is-active", *timers, check=False).stdout.split()

        assert "unit" not in machine.run("dpkg", "--install", f"/opt/{package.name}").stderr
        assert states() == ["inactive", "inactive"]
        machine.run("systemctl", "start", timers[1])  # systemd knows it without a reload of ours
        machine.run("systemctl", "stop", timers[1])
        machine.run("systemctl", "enable", "--now", timers[0])
        machine.run("dpkg", "--install", f"/opt/{next_package.name}")
        assert states() == ["active", "inactive"]
        assert machine.run("systemctl", "show", "-P", "NeedDaemonReload", *timers).stdout.split() == [
            "no",
            "no",
        ]
        machine.run("dpkg", "--remove", "mender-oneshot")
        assert states() == ["inactive", "inactive"]
        assert not machine.failed()
        machine.run("dpkg", "--purge", "mender-oneshot")
        assert not ours(root)


@pytest.mark.long
def test_the_bill_of_materials() -> None:
    """The tool checks it against the schema; here, that it lists what a device gets and nothing else."""
    tell("make", "-s", "-C", REPO, "sbom", f"PYTHON={sys.executable}")
    listed = json.loads((REPO / "dist" / f"mender-oneshot-{__version__}.cdx.json").read_text())
    assert listed["bomFormat"] == "CycloneDX"
    root = listed["metadata"]["component"]
    assert (root["name"], root["version"]) == ("mender-oneshot", __version__)
    needed = {"click", "cryptography", "cffi", "pycparser", "urllib3", "msgpack", "wsproto", "h11"}
    assert {component["name"] for component in listed["components"]} == needed


# The recipes that are not built here.


def test_the_recipes_know_the_license() -> None:
    license = (REPO / "LICENSE").read_bytes()
    assert hashlib.md5(license).hexdigest() in RECIPE.read_text()
    hashes = PACKAGING / "buildroot" / "package" / "mender-oneshot" / "mender-oneshot.hash"
    assert f"sha256  {hashlib.sha256(license).hexdigest()}  LICENSE\n" in hashes.read_text()


def imported() -> set[str]:
    """The modules of others that a device's part of the program imports, wherever it does."""
    found = set()
    for path in (REPO / "mender_oneshot").rglob("*.py"):
        if "devserver" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module)
    return found


def test_yocto_has_every_module() -> None:
    """Each module, or its parent, is in the README's table, and each package of that in the recipe."""
    rows = re.findall(
        r"^\| `(python3-[a-z]+)` \| (.+) \|$", (PACKAGING / "README.md").read_text(), re.MULTILINE
    )
    modules = {module: package for package, cell in rows for module in re.findall(r"`([a-z0-9.]+)`", cell)}
    libraries = {"click", "cryptography", "msgpack", "urllib3", "wsproto"}
    missing = {
        name
        for name in imported()
        if name.partition(".")[0] not in libraries
        and not any(name == module or name.startswith(f"{module}.") for module in modules)
    }
    assert missing == set()
    wanted = {package for package, _ in rows} | {f"python3-{library}" for library in libraries}
    assert set(re.findall(r"python3-[a-z0-9]+", RECIPE.read_text())) == wanted


OPTIONS = {
    "BZIP2": "_bz2",
    "CURSES": "_curses",
    "DECIMAL": "_decimal",
    "PYEXPAT": "pyexpat",
    "READLINE": "readline",
    "SQLITE": "_sqlite3",
    "SSL": "_ssl",
    "UNICODEDATA": "unicodedata",
    "XZ": "_lzma",
    "ZLIB": "zlib",
}
"""The modules that Buildroot's Python has only where an option says so (its package/python3/Config.in)."""


def test_buildroot_has_every_module(accepted: Device, release: Callable[..., str]) -> None:
    """An update works without the modules of the options that are not selected."""
    recipe = (PACKAGING / "buildroot" / "package" / "mender-oneshot" / "Config.in").read_text()
    selected = set(re.findall(r"select BR2_PACKAGE_PYTHON3_(\w+)", recipe))
    assert selected < set(OPTIONS)
    missing = [module for option, module in OPTIONS.items() if option not in selected]
    code = f"import sys; sys.modules.update(dict.fromkeys({missing})); import mender_oneshot.__main__ as m; "
    release(compression="xz")
    accepted.sub_updater()
    done = subprocess.run(
        [accepted.python, "-c", f"{code} sys.exit(m.main())", "run", "--all"],
        env=accepted.env(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "Handed release-2 to" in done.stdout) == (0, True), done


def test_a_tree_of_buildroots_has_what_it_needs(tmp_path: Path) -> None:
    """Its command is ours, and works with what it is given: here a target, and a Python of the host."""
    recipe = (PACKAGING / "buildroot" / "package" / "mender-oneshot" / "mender-oneshot.mk").read_text()
    command = re.search(r"INSTALL_TARGET_CMDS\n(.+?)\nendef", recipe, re.DOTALL)
    assert command
    script = command[1].replace("$(TARGET_MAKE_ENV) $(MAKE)", "make -s").replace("$(@D)", str(REPO))
    script = script.replace("$(TARGET_DIR)", str(tmp_path)).replace("$(HOST_DIR)/bin/python3", sys.executable)
    assert "$(" not in script
    tell("sh", "-c", script)
    launcher = (tmp_path / "usr/bin/mender-oneshot").read_text()
    assert launcher.startswith("#!/usr/bin/python3 -ISXutf8\n")
    assert list((tmp_path / "usr/share/mender-oneshot").rglob("*.pyc"))


def test_what_the_security_page_points_to_is_there() -> None:
    text = (REPO / "docs" / "SECURITY.md").read_text()
    shown = re.findall(r"`((?:[a-z]+/)?(?:test_[a-z_]+\.py|fuzz/))`", text)
    assert len(shown) > 10
    assert [name for name in shown if not (REPO / "tests" / name).exists()] == []


def test_purge_takes_what_is_ours_and_passes_by_what_it_cannot_remove(tmp_path: Path) -> None:
    """A directory or a FIFO under one of our names does not leave the package half removed."""
    script = (PACKAGING / "debian/mender-oneshot.postrm").read_text()
    data = tmp_path / "data"
    assert script.count("/var/lib/mender\n") == 1
    postrm = tmp_path / "postrm"
    postrm.write_text(script.replace("/var/lib/mender\n", f"{data}\n"))
    ours = [
        paths.STATE,
        paths.UPDATE_LOCK,
        paths.PART,
        paths.ARTIFACT,
        paths.SUB_UPDATER_LOG,
        paths.DEPLOYMENT_LOG,
        paths.TERMINAL_LOCK,
        paths.SUB_UPDATER_LOCK,
        f"{paths.STATE}.new",
        f"{paths.STATE}.new1a",
    ]
    for directory in (None, *ours):
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir()
        for name in (*ours, "mender-agent.pem"):
            (data / name).mkdir() if name == directory else (data / name).touch()
        os.mkfifo(data / paths.LOCK)
        done = subprocess.run(["sh", str(postrm), "purge"], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        assert {path.name for path in data.iterdir()} == {"mender-agent.pem", directory} - {None}


def test_a_removal_stops_every_unit() -> None:
    script = (PACKAGING / "debian/mender-oneshot.prerm").read_text()
    units = {
        path.name for path in (REPO / "systemd-timers").iterdir() if path.suffix in (".service", ".timer")
    }
    stopped = re.findall(r"(mender-oneshot-[a-z-]+(?:@(?=[a-z]))?)[a-z]*(\.timer|\.service)", script)
    assert {"".join(parts) for parts in stopped} == units
