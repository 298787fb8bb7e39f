"""Mender artifacts, format version 3: read and verified in one pass.

The format: https://github.com/mendersoftware/mender-artifact, Documentation/artifact-format-v3.md, and what
mender-artifact 3.9.0 writes. The rules of acceptance: src/artifact of https://github.com/mendersoftware/mender.
"""
