"""The remote terminal: what deviceconnect asks of a device. One process, one thread, one loop."""
