"""Which root file system is mounted: that of the old system, or that of the new one."""

MOUNTS = "/proc/self/mountinfo"


def mounted() -> str:
    """Return what identifies the root file system, also after a reboot; "" without /proc (proc(5)).

    A partition has a device number. A UBI volume and a btrfs subvolume have none that lasts, only a name.
    """
    found = ""
    try:
        with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                words = line.split()
                if len(words) > 4 and words[4] == "/" and "-" in words:
                    number, inside, source = words[2], words[3], words[words.index("-") + 1 :][1:2]
                    found = " ".join(["" if number.startswith("0:") else number, inside, *source]).strip()
    except OSError:
        return ""
    return found.encode("ascii", "backslashreplace").decode()
