"""`make bench-paper`: the experiments of Chen et al. 2022, section 5, made again.

experiments        table of what the paper measured: settings, families, how often
sizes              the families of a size: by a share of the parameters, or by another's count
filter_pruning     `fp`, the paper's last competitor
runs               the runs of that table, by the protocol of benchmarks.lift; what is left of them
published          the paper's own figures
lines              of each setting and family the runs that its figure is of
tables, plots      those -> docs/results/paper.md and its plots
"""
