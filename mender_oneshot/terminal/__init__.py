"""The remote terminal: the device's side of deviceconnect. One process, one thread, one event loop."""
