"""Programs run in another root file system, which has the same files but those that are hidden."""

from pathlib import Path

_SCRIPT = """
slot=$1
shift
mount -t tmpfs other-slot "$slot"
for name in /*; do
    if [ -L "$name" ]; then cp -a "$name" "$slot$name"
    elif [ -d "$name" ]; then mkdir "$slot$name"; mount --rbind "$name" "$slot$name"
    fi
done
{more}
exec chroot "$slot" "$@"
"""


def other_root(slot: Path, more: str = "") -> tuple[str, ...]:
    """Return a wrapper that runs a command there; `slot` is empty, `more` is shell code."""
    slot.mkdir(exist_ok=True)
    return ("unshare", "-m", "sh", "-euc", _SCRIPT.format(more=more), "sh", str(slot))
