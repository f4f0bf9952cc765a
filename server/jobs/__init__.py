"""Runs long work in child processes: one queue, kept in the table of refinements.

queue.py        what a refinement's row says, and every change of it
child.py        one child process: its pipes, its priority, its end
work.py         the contract of what is run (`Work`); jobs never imports it
supervisor.py   takes refinements from the queue and sees each to its end
heartbeat.py    a worker's sign of life, and its look at those of others
settings.py     how many at once, how nice, how patient
"""
