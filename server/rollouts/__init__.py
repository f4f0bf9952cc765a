"""Moves devices to a version: rollouts, and one assignment per device."""
