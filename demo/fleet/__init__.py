"""A fleet on this machine: 40 simulated devices, two real agents, one bad version."""
