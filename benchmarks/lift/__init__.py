"""`make bench-lift`: accuracy gained against bytes sent, by a protocol that can be believed.

settings     models, data, how long they are trained
candidates   what is compared, and the grid that each method is tuned on
protocol     initial models and runs of a setting
choice       tuning: the rate of each method that does best on held-out training rows
figures      means, intervals and bytes at equal lift
report       Markdown and plot

The settings are the paper's (Chen et al. 2022, section 5): a model deployed with a first part of
the training data, updated with all of it.

1. Tuning: every method on the same small grid, with one initial model, one seed and a short
   training on all but 5,000 of the rows; judged on those. The test set is not opened.
2. Figures: the chosen candidates with several initial models and refinement seeds, the same for all
   methods (paired), on all rows; the test set is read once a run.

One JSON a run, in benchmarks/results/lift; a run that is there is not repeated.
"""
