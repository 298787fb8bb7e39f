"""A made-up board with two slots for a root file system and a boot loader, played by regular files."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from helpers.device import Run
from helpers.module_tree import Cut, Tree, ours

_PRINT = """#!/bin/sh
[ -e {broken} ] && {{ echo "Cannot open the environment" >&2; exit 1; }}
code=0
for name; do
    found=
    while read -r line; do [ "${{line%%=*}}" = "$name" ] && found=$line; done < {env}
    if [ "$found" ]; then echo "$found"
    elif [ {style} = uboot ]; then echo "## Error: \\"$name\\" not defined" >&2; code=1
    else echo "$name="; fi
done
exit $code
"""

_SET = """#!/bin/sh
[ -e {broken} ] && {{ echo "Cannot write the environment" >&2; exit 1; }}
[ "$1 $2" = "-s -" ] || exit 64
cp {env} {env}.new
while read -r line; do
    case $line in
        *" "*) [ {style} = libubootenv ] && continue; name=${{line%% *}} value=${{line#* }} ;;
        *) [ {style} = uboot ] && exit 1; name=${{line%%=*}} value=${{line#*=}} ;;
    esac
    sed -i "/^$name=/d" {env}.new
    echo "$name=$value" >> {env}.new
done
mv {env}.new {env}
echo set >> {env}.calls
"""


class ModuleBoard:
    """The slots /dev/board1p2 and 3 below `root`, the boot loader's variables, and what is mounted."""

    def __init__(self, root: Path, size: int, style: str = "libubootenv") -> None:
        self.root = root
        self.slots = {2: root / "dev" / "board1p2", 3: root / "dev" / "board1p3"}
        self.env = root / "env"
        self.data = root / "data"
        self.conf = root / "etc"
        self.programs = root / "programs"
        for directory in ("dev", "proc/self", "data", "etc", "programs", "sys"):
            (root / directory).mkdir(parents=True)
        for path in self.slots.values():
            path.write_bytes(b"\0" * size)
        names = ("grub-mender-grubenv-print", "grub-mender-grubenv-set")
        for name, text in zip(
            names if style == "grub" else ("fw_printenv", "fw_setenv"), (_PRINT, _SET), strict=True
        ):
            self.program(name, text.format(env=self.env, broken=root / "broken", style=style))
        self.set(mender_boot_part=2, mender_boot_part_hex=2, upgrade_available=0, bootcount=0)
        (root / "proc" / "cmdline").write_text("console=ttyS0 quiet\n")
        self.mount(self.slots[2])
        self.configure(RootfsPartA=str(self.slots[2]), RootfsPartB=str(self.slots[3]))
        self.tree = self.new_tree()

    def program(self, name: str, text: str) -> None:
        """Install a program."""
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)

    def new_tree(self) -> Tree:
        """Begin another update."""
        shutil.rmtree(self.data / "tree", ignore_errors=True)
        self.tree = Tree(
            self.data / "tree",
            ours("rootfs_image", arguments=f", board=Board({str(self.root)!r}, is_device=stat.S_ISREG)"),
        )
        self.tree.environment = {
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "MENDER_CONF_DIR": str(self.conf),
            "MENDER_DATASTORE_DIR": str(self.data),
        }
        return self.tree

    def configure(self, **settings: Any) -> None:
        """Write `mender.conf`."""
        (self.conf / "mender.conf").write_text(json.dumps(settings))

    def mount(self, source: object, *more: str) -> None:
        """Let a device be the mounted root; `more` are further lines of mountinfo."""
        lines = [
            "22 27 0:21 / /proc rw,relatime - proc proc rw",
            f"27 1 0:99 / / rw,relatime shared:1 - ext4 {source} rw",
            *more,
        ]
        (self.root / "proc" / "self" / "mountinfo").write_text("\n".join(lines) + "\n")
        self.running = next((number for number, path in self.slots.items() if path == source), 0)

    @property
    def variables(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.env.read_text().splitlines())

    def set(self, **variables: object) -> None:
        """Change variables of the boot loader."""
        found = self.variables if self.env.exists() else {}
        found |= {name: str(value) for name, value in variables.items()}
        self.env.write_text("".join(f"{name}={value}\n" for name, value in found.items()))

    @property
    def boots(self) -> tuple[str, str]:
        """What the boot loader will do: the slot, and whether that is a trial."""
        return self.variables["mender_boot_part"], self.variables["upgrade_available"]

    def reboot(self) -> int:
        """Boot as Mender's GRUB does, and return the slot that runs then."""
        found = self.variables
        slot = int(found["mender_boot_part"])
        if found["upgrade_available"] == "1":
            if found["bootcount"] == "0":
                self.set(bootcount=1)
            else:
                slot = 5 - slot
                self.set(mender_boot_part=slot, mender_boot_part_hex=slot, upgrade_available=0, bootcount=0)
        self.mount(self.slots[slot])
        return slot

    def download(self, image: bytes, wrapper: Sequence[str] = (), **options: Any) -> Run:
        """Stream one image."""
        return self.tree.feed([("image.ext4", image)], wrapper=wrapper, **options)

    def begin(self, image: bytes) -> None:
        """Download and install, so that the next boot is a trial."""
        done = self.download(image)
        assert done.code == 0, done
        self.tree.ok("ArtifactInstall")

    def verdicts(self) -> tuple[bool, bool]:
        """Return the answers to the two questions that tell the systems apart."""
        return tuple(  # type: ignore[return-value]
            self.tree.call(call).code == 0
            for call in ("ArtifactVerifyReboot", "ArtifactVerifyRollbackReboot")
        )


def cut_at(cut: Cut) -> tuple[str, ...]:
    """Return the wrapper that kills a call there."""
    inject = f"inject={cut.call}:signal=SIGKILL:when={cut.nth}"
    return ("strace", "-qq", "-o", "/dev/null", "-e", f"trace={cut.call}", "-e", inject)
