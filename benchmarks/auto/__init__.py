"""`make bench-auto`: what `auto` chooses, against all that a grid would have found.

setting      data, the initial model, and the grid
runs         one run: a refinement of the grid, or one by `auto`
report       Markdown, the curves as SVG

For each goal, the best of the grid that meets it is held against what `auto` publishes: points of
accuracy lost, or bytes spent, and what each took. Both choose on the rows on which they are judged.

One JSON a run, in benchmarks/results/auto; a run that is there is not repeated.
"""
