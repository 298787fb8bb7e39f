"""A file system without a sync of directories, as a patch of the client's Python."""

NO_SYNC = """
import os, stat
fsync = os.fsync
def patched(descriptor):
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        raise OSError({error}, os.strerror({error}))
    fsync(descriptor)
os.fsync = patched
"""
"""Syncing a directory fails with `error`, a number."""
