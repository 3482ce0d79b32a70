"""The local critical batch size, as Merrill et al. (arXiv 2505.23971) measure it on branches.

From one checkpoint runs at several batch sizes go on over the same examples. The critical batch is
the largest whose smoothed loss is within a tolerance of that of every smaller one. They give one of
the sizes tried; here the loss between two sizes is a line over the logarithm of the batch size.

With a contrastive loss a larger batch may be better than all smaller ones, because it has more
negatives. The best of the smaller ones is then what it is compared with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

WEIGHT = 0.5  # of the newest value, theirs
TOLERANCE = 0.01  # nats, theirs


def smooth(values: Iterable[float], *, weight: float = WEIGHT) -> float:
    """The last value of an exponential moving average that begins with the first value."""
    first, *others = values
    for value in others:
        first += weight * (value - first)
    return first


def local_critical_batch(
    losses: Mapping[int, float], *, tolerance: float = TOLERANCE
) -> tuple[float, bool]:
    """Where the loss first exceeds the best one of smaller batches by the tolerance for good.

    Args:
      losses: by batch size, two or more.

    Returns: the batch size, and whether it is known: else no size is too large, and it is the
      largest of them.
    """
    sizes = sorted(losses)
    best = {size: min(losses[b] for b in sizes if b <= size) for size in sizes}
    last = max(size for size in sizes if losses[size] <= best[size] + tolerance)
    if last == sizes[-1]:
        return float(last), False
    beyond = sizes[sizes.index(last) + 1]
    limit = best[last] + tolerance
    share = (limit - losses[last]) / (losses[beyond] - losses[last])
    return float(last * (beyond / last) ** share), True
