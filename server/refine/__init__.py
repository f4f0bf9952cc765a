"""Compact refinement: retrain a clone of the deployed model, learning only what will be sent.

recipe      how to train
weights     weights files <-> torch
batches     the data in memory, split and augmented
start       where training starts: the base's weights in the target's shapes
reparam/    the training half of each method
effective   the clone: base + change, one change per storage
loop        the training loop
teacher     softer targets than labels, where a recipe asks for them
batchnorm   statistics: re-estimated, folded, unfolded
checkpoint  what a resumed training needs
evaluate    accuracy, per class, and negative flips
job         the steps above, in order
"""
