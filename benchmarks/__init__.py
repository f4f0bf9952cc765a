"""Measurements: each writes JSON, and Markdown and a plot made from it, to benchmarks/results/."""
