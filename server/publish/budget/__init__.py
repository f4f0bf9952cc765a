"""`auto`: the update of a refinement chosen by what it may cost, or by what it must reach.

goal     what was asked for
curve    what was measured: a point for each package that was tried
tiers    from a size to what is trained for it (pure)
search   what to try next, and what to choose (pure)
fitting  fewer symbols of a trained change, until its package fits
run      runs the trials, each in a folder of its own
plot     the curve as SVG
"""
