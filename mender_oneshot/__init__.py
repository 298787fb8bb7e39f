"""The Mender device client with no daemon."""

__version__ = "0.1.0"
