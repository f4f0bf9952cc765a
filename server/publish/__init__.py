"""From what was made to what can be installed: refinements, and packages between versions.

spec.py         what the child of a refinement is told, and what it answers
update.py       one update: refine -> package -> evaluate
budget/         `auto`: several of them, to choose from by size and accuracy
pipeline.py     the child process that makes either
refinement.py   the server's side of it: prepares the child's folder, publishes its results
publishing.py   versions and packages into registry and store, in one transaction
needs.py        which packages and weights are still needed (pure)
expiry.py       removes those that are not, when they are old
orphans.py      blobs that a crash left without a row, removed later
housekeeping.py all that is removed because of its age
on_demand.py    packages between two versions that exist: for planner and operators
accuracy.py     what may be asked of the accuracy of a lossy one; measuring.py finds it, with torch
automatic.py    packages that are made without being asked for
*_routes.py     the HTTP side; schemas.py says what it takes and gives
"""
