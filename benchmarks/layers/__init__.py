"""`make bench-layers`: layers that are no convolutions, by the protocol of benchmarks.lift.

Two small models of the zoo on MNIST: an LSTM that reads an image row by row, and a transformer over
its patches. Each is deployed with the first 1,200 rows (2%) and updated with 20,000.

claim      what the runs say: bytes for half of the dense lift
report     Markdown and plot

Low-rank adaptation (LoRA, Hu et al. 2022) is the peer: 4 bytes a parameter, as its files hold
them; with biases and norms, or without them (`alone`), as it is mostly used. Its rate is tuned on
the same grid, by the same short trainings.
"""
