"""GDAS (Dong & Yang, CVPR 2019): search for a neural cell by gradient descent through a sampler.

A plain PyTorch library, which does not depend on where it runs.
"""

ALGORITHM_VERSION = 10
"""A number that is raised when a fix changes results.

It is part of every job's id, so that old results are not mistaken for new ones. A test compares
golden digests, and fails until it is raised.
"""
