"""What server and device must agree on, to the bit."""
