"""Refined or uploaded weights -> an update package that every device decodes alike."""
