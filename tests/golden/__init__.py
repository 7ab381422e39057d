"""What other things depend on, held as text: ids of jobs, names of parameters, the commands' help.

A change of these is seen in review, never by accident. After a change that is meant:
`python -m tests.golden`.
"""
