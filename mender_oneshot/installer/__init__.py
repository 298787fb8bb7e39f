"""The built-in installer: update modules, state scripts and the order in which they are called.

It is the sub-updater of a device that has none of its own, in a process that `install` starts like any other.
"""
