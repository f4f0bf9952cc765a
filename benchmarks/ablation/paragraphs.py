"""A paragraph for each variant: what it does, and why it pays or does not."""

from __future__ import annotations

TOLD = {
    "distilled": (
        "Targets from a teacher instead of labels, the teacher being these layers retrained "
        "densely for as long, without augmentation. It has seen the labels of the same rows, "
        "and after so short and plain a training its answers tell little that they do not."
    ),
    "uniform-steps": (
        "Steps as one share of each tensor's spread, as codecs take them, instead of one loss "
        "for a step everywhere (`server.refine.sensitivity`). No share suits a convolution "
        "and a linear layer at once."
    ),
    "dear-steps-1.5": ("Half the loss for a step, so finer grids: more symbols, each doing less."),
    "dear-steps-6": (
        "Twice the loss for a step, so coarser grids: fewer symbols, each doing more."
    ),
    "plain-l1": (
        "A penalty that does not follow how rare symbols are in a tensor, where production "
        "has `1 + log2((1 - p) / p)` bits at a share `p` of them."
    ),
    "late-rounding": (
        "As the factors of other methods: the change is real in the first half of the "
        "training and rounded in the second. `sparse` rounds from the first step on."
    ),
    "vectors-8bit": (
        "Biases and BatchNorm at 8 bits each, instead of on grids of equal loss "
        "(`server.refine.steps`)."
    ),
    "averaged": (
        "At 85% of the training symbols are fixed as they were most of the time, as many as "
        "the aim allows, and BatchNorm and biases go on alone. Most symbols flicker, so that "
        "the last step of a training looks like an arbitrary one to stop at; but the falling "
        "rate averages at least as well."
    ),
    "rdo-weight-0.3": (
        "After training, per weight the symbol that minimises `F (d - q step)^2 / 2 + price "
        "of q`, with `d` the trained change before rounding, `F` the weight's own Fisher "
        "information over 2,048 images and 0.3 of the training's price; then an epoch of "
        "BatchNorm and biases. Trained changes hover about the threshold, so that most of "
        "them look like rounding errors, and good symbols go with bad ones."
    ),
    "rdo-tensor-0.3": ("The same with one `F` a tensor."),
    "rdo-taylor-1": (
        "After training, a symbol goes where by the gradient over 20,000 images and by `F` "
        "its absence loses less than its bytes cost; then the same epoch. That is at best as "
        "good as a lower aim, and takes longer."
    ),
    "refit": (
        "An epoch of BatchNorm and biases alone, after a training: what the rows above have "
        "beside their choice."
    ),
    "rate-0.02": ("A lower rate for the change: symbols flicker less, and come up more slowly."),
    "rate-0.1": ("A higher rate for the change, for symbols that come up sooner and flicker more."),
    "batch-256": ("Half as many steps, each with less noise."),
    "smooth": ("Label smoothing of 0.05."),
    "beta1-0.97": ("A longer memory of the gradient's mean."),
    "eps-0.003": (
        "An epsilon above most gradients' spread, so that weights which the loss hardly feels "
        "stay calm."
    ),
    "aim-down": (
        "The aim falls from four times what is asked for to that, by 60% of the training."
    ),
    "aim-up": ("The aim grows from a tenth of what is asked for to that, by 60% of the training."),
    "whole-distilled": (
        "As `distillation`, with all of VGG-small trained, and its dense retraining, cropped "
        "and mirrored, as the teacher. More accuracy in more bytes, and a higher loss: no "
        "gain that stands out from the noise with a teacher as short as the training. A "
        "teacher of 20 epochs did better in a trial (docs/adr/0034)."
    ),
}
