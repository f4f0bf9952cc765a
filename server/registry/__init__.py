"""Models, their versions, and datasets."""
