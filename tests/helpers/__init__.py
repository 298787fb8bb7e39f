"""What the tests share: devices, artifacts, peers, real programs, faults and whole machines."""
