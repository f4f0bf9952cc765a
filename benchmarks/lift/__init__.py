"""`make bench-lift`: accuracy gained against bytes sent, by a protocol that can be believed.

protocol     data, initial models, one run
candidates   what is compared, and the grid that each method is tuned on
choice       tuning: the candidate of each method that does best on held-out training rows
figures      means, intervals and bytes at equal lift
report       Markdown and plot

The setting is the paper's (Chen et al. 2022, Table 1): VGG-small on CIFAR-10, deployed with the
first 20% of the training data, updated with all of it.

1. Tuning: every method on a small grid, with one initial model, one seed and a short training on
   the first 45,000 rows; judged on the 5,000 others. The test set is not opened.
2. Figures: the chosen candidates with several initial models and refinement seeds, the same for all
   methods (paired), on all rows; the test set is read once a run.

One JSON a run, in benchmarks/results/lift; a run that is there is not repeated.
"""
