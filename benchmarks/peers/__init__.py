"""`make bench-peers`: what a user could pick instead, with the data and models of `bench-lift`.

dense        dense retraining with a decay towards the base: what codecs are given to code
nncodec      NNCodec (ISO/IEC 15938-17) on the change of the retrained weights, searched
lora         PEFT's LoRA, trained in the same loop on the same batches
lossless     zstd --patch-from, bsdiff4, and our `xor`, on the retrained file
folding      BatchNorm re-estimated after decoding, and folded: what ours does is given to all
outside      how the main environment calls the peers' one
*_line       what runs in the peers' environment (requirements.txt): nothing else imports it
report       Markdown and plot

One JSON a run, in benchmarks/results/peers, with the keys of `benchmarks.lift`; a run that is there
is not repeated. What is chosen is chosen on held-out training rows with one initial model; the test
set is read once a run.
"""
