"""Measurements: JSON to benchmarks/results, pages and plots made from it to docs/results."""
