"""Which package takes a device from what it holds to a version, at what cost."""
