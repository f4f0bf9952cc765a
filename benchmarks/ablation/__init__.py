"""Which parts of `sparse` pay: each left out or replaced by another, everything else as it is.

variants     what is compared, and how each differs from what production does
paragraphs   what is to be said of each
patches      trainings that production has no option for
choosing     symbols chosen at the end of a training, or after it
tail         the part of a model that is trained, for short
protocol     runs: short trainings, judged on held-out training rows
report       Markdown

Variants share initial models and seeds. Since a variant has other bytes *and* another accuracy, it
is compared with the curve of `sparse` itself: how many bytes that needs for the same loss on the
held-out rows. The loss, as it is less noisy than the accuracy of 5,000 images; the test set is not
opened.

One JSON a run, in benchmarks/results/ablation; a run that is there is not repeated.
"""
