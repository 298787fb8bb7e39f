"""Artifacts for update modules, written by the real `mender-artifact`."""

import subprocess
from collections.abc import Mapping
from pathlib import Path


def write_artifact(
    path: Path,
    kind: str,
    files: Mapping[str, str | bytes],
    *options: str,
    scripts: Mapping[str, str] | None = None,
) -> Path:
    """Write an artifact for the update module `kind`, named after `path`, and return the path.

    `scripts` are state scripts by name; `options` are more options of `mender-artifact write module-image`.
    """
    source = path.with_suffix(".source")
    named: list[str] = []
    for option, contents in (("-f", files), ("-s", scripts or {})):
        directory = source / option[1:]
        directory.mkdir(parents=True)
        for name, content in contents.items():
            (directory / name).write_bytes(content if isinstance(content, bytes) else content.encode())
            (directory / name).chmod(0o755)
            named += (option, str(directory / name))
    command = ["mender-artifact", "write", "module-image", "-T", kind, "-t", "board", "-n", path.stem]
    done = subprocess.run(
        [*command, "-o", str(path), *named, *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return path
