"""Messages for an `OSError`: what failed, why, and what to do now."""

import errno
import os

from . import errors

_LATER = "and the next run will retry"

_ADVICE = {
    errno.ENOSPC: f"free some space, {_LATER}",
    errno.EDQUOT: f"raise the disk quota of this user or delete files, {_LATER}",
    errno.EROFS: "mount it read-write, or list it in ReadWritePaths= of the unit, " + _LATER,
    errno.EFBIG: "raise the file size limit (ulimit -f, LimitFSIZE= of the unit), " + _LATER,
    errno.EIO: f"check the storage device (dmesg), {_LATER}",
    errno.EMFILE: "raise the limit on open files (ulimit -n, LimitNOFILE= of the unit), " + _LATER,
    errno.ENFILE: f"find the program that keeps too many files open, {_LATER}",
    errno.ENOMEM: f"free some memory, {_LATER}",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.ENOENT: "create its directory",
    errno.ENOTDIR: "part of the path is a file; correct the path",
    errno.EISDIR: "a directory has its name; remove the directory",
    errno.ELOOP: "its symbolic links form a loop; correct them",
    errno.EXDEV: "it is a mount point; unmount it",
    errno.EBUSY: "something is mounted on it or uses it; unmount it",
    errno.ETXTBSY: f"wait for the program that runs it, {_LATER}",
    errno.ESTALE: "mount the network file system again",
    errno.ENOLCK: "its file system does not support locks; put the data directory on another one",
    errno.EOPNOTSUPP: "its file system does not support that; put the data directory on another one",
    errno.EINVAL: "its file system does not support that; put the data directory on another one",
    errno.ENOSYS: "its file system does not support that; put the data directory on another one",
    errno.EEXIST: "its file system cannot replace a file; put the data directory on another one",
    errno.ENXIO: "it is a FIFO or a socket; remove it",
}

_CANNOT_CREATE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}


def failure(doing: str, error: OSError) -> errors.Error:
    """Return the error for an `OSError`; `doing` is the operation and the file ("write /var/lib/x").

    `errors.NoSpace` if the file cannot be created or the disk is full, else `errors.DiskError`.
    """
    code = error.errno or 0
    why = os.strerror(code) if code else str(error)
    kind = errors.NoSpace if code in _CANNOT_CREATE else errors.DiskError
    return kind(f"Cannot {doing}: {why}; {_advice(code, error.filename)}.")


def require_file_size(path: str, size: int) -> None:
    """Raise `errors.NoSpace` if RLIMIT_FSIZE does not allow this process a file of `size` bytes."""
    import resource  # only a download needs it

    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit != resource.RLIM_INFINITY and size > limit:
        raise errors.NoSpace(
            f"Cannot write {path}: its {size} bytes are more than the limit of {limit}; "
            f"{_ADVICE[errno.EFBIG]}."
        )


def _advice(code: int, path: object) -> str:
    if code in (errno.EACCES, errno.EPERM):
        return _permission(code)
    if code == errno.ENOSPC and isinstance(path, str) and _is_out_of_inodes(os.path.dirname(path)):
        return f"delete files to free inodes, {_LATER}"
    return _ADVICE.get(code, f"check the file system, {_LATER}")


def _permission(code: int) -> str:
    if os.geteuid():
        return "run this as root"
    if code == errno.EPERM:
        return "it or its directory may be immutable (see lsattr); remove that attribute with chattr -i"
    return "check its owner and mode, the mount options and the security modules"


def _is_out_of_inodes(directory: str) -> bool:
    try:
        room = os.statvfs(directory or ".")
    except OSError:
        return False
    return bool(room.f_files) and not room.f_ffree
