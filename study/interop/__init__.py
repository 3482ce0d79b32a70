"""Checkpoints of other implementations: read, written, started from and compared with.

Every reader gives the same: a nested dict of float32 numpy arrays named and shaped as the
parameters of `study.towers`, with any of the parts `img`, `txt`, `t` and `b`.
"""
