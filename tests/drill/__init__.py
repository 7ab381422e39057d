"""The fault drill: a small study struck by faults, again and again; does it end with the same bits?

    python -m tests.drill [--seed N] [--faults N] [--only KIND,...]
           [--experiment NAME] [--out DIR]

A program around the command line, not a part of it: it starts the command as a user would, strikes
from outside (signals to processes, harm to files, a server that dies), and starts it again. Where
a kill must hit an exact place, it leaves the files as that kill would leave them, so that no other
module knows of the drill.
"""
