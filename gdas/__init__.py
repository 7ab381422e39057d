"""GDAS (Dong & Yang, CVPR 2019): search for a neural cell by gradient descent through a sampler.

A plain PyTorch library: it knows nothing of where it runs.
"""

ALGORITHM_VERSION = 4
"""Raised when a fix changes results; enters the id of every job, so that old results are not
mistaken for new ones. A test holds golden digests against it."""
