"""A virtual board with two root file systems and GRUB, run by QEMU: one update, or one with its power cut."""
