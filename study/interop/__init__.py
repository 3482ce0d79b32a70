"""Reads and writes checkpoints of other implementations, and embeds with them.

Every reader returns a `Tree`: nested dicts of float32 numpy arrays, named and shaped as the
parameters of `study.models`, with any of the parts `img`, `txt`, `t` and `b`.
"""
