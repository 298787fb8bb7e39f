"""The update modules that come with the client, one file each, for devices that have none of their own.

Each has `main(argv)` for the two arguments of the protocol, version 3: the name of the call and the absolute
path of the tree, which is also the working directory. It prints answers to stdout and explanations to stderr,
and returns 0 or 1. A call that a module does not implement prints nothing and succeeds.
"""

MODULES = {
    "deb": "deb",
    "directory": "directory",
    "rootfs-image": "rootfs_image",
    "script": "script",
    "single-file": "single_file",
}
"""The Python module of this package for each payload type."""
