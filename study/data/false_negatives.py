"""Counts the false negatives of a stream: pairs of a batch that match and are trained not to.

Two examples of one batch are a false negative if they show the same class (the same emoji by two
artists), or if their captions are equal. They become more frequent with the batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from study.data.formats.dataset import DataError, Dataset
from study.data.formats.open_split import open_split
from study.data.order import indices
from study.data.sources import load_labels

HEAD = ("batch size", "same class", "same caption", "either", "of negatives", "affected")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FalseNegatives:
    """False negatives at one batch size, means over batches.

    Attributes:
      same_class: other examples of the batch with the class of an example, per example; 0 for a
        data set without classes.
      same_caption: with its caption.
      either: with one of both.
      share: `either` as a share of all negatives of an example.
      affected: share of the examples with at least one.
    """

    batch_size: int
    batches: int
    same_class: float
    same_caption: float
    either: float
    share: float
    affected: float

    @property
    def texts(self) -> tuple[str, ...]:
        """A row of a table with the head `HEAD`."""
        return (
            f"{self.batch_size:,}",
            *(f"{x:.3g}" for x in (self.same_class, self.same_caption, self.either)),
            *(f"{100 * x:.3g} %" for x in (self.share, self.affected)),
        )


def count_false_negatives(
    dataset: Dataset, split: str, batch_sizes: list[int], *, examples: int, seed: int = 0
) -> list[FalseNegatives]:
    """Counts them in the batches of the first examples of a run, for each batch size.

    Arguments:
      examples: length of the stream; each batch size has at least one batch.
      seed: the seed of the cell.

    Raises:
      DataError: a batch larger than the split, or a shard that cannot be read.
    """
    size = dataset.split(split).examples
    if max(batch_sizes) > size:
        raise DataError(f"{split} has {size:,} examples, fewer than a batch of {max(batch_sizes)}")
    reader = open_split(dataset, split)
    position_N = np.arange(max([examples, *batch_sizes]))
    index_N = indices(position_N, size=size, seed=seed)
    _, caption_N = np.unique([reader.text(i) for i in range(size)], return_inverse=True)
    # Without classes each example is its own.
    class_N = load_labels(dataset, split) if dataset.class_names else np.arange(size)
    _, both_N = np.unique(class_N.astype(np.int64) * size + caption_N, return_inverse=True)
    groups_3xN = np.stack([class_N, caption_N, both_N])[:, index_N]
    return [_count(groups_3xN, batch_size) for batch_size in batch_sizes]


def format_page(
    name: str, counts: Mapping[str, Sequence[FalseNegatives]], *, examples: int, seed: int
) -> str:
    """The counts by split of a data set as a page in Markdown, with the command that made it."""
    splits = " ".join(f"--split {split}" for split in counts)
    sizes = " ".join(
        f"--batch-size {count.batch_size}" for count in next(iter(counts.values()), ())
    )
    lines = [
        f"# False negatives in batches of {name}",
        "",
        f"    study data false-negatives data/{name} {splits} \\",
        f"      {sizes} \\",
        f"      --examples {examples} --seed {seed} --out PAGE",
        "",
        "Negatives of a batch that match: the same class (such as an emoji by two artists), or the",
        "same caption. Means over the batches of one run: how many there are for an example, their",
        "share of all its negatives, and the share of examples with at least one.",
    ]
    for split, own in counts.items():
        lines += ["", f"## {split}", "", f"| {' | '.join(HEAD)} |", f"|{'---:|' * len(HEAD)}"]
        lines += [f"| {' | '.join(count.texts)} |" for count in own]
    return "\n".join(lines) + "\n"


def _count(groups_3xN: np.ndarray, batch_size: int) -> FalseNegatives:
    batches = groups_3xN.shape[1] // batch_size
    sums_4 = np.zeros(4)
    for start in range(0, batches * batch_size, batch_size):
        # How many others share each example's class, its caption, and both.
        others_3xB = np.stack(
            [
                np.bincount(group_B)[group_B] - 1
                for group_B in groups_3xN[:, start : start + batch_size]
            ]
        )
        either_B = others_3xB[0] + others_3xB[1] - others_3xB[2]
        sums_4 += [others_3xB[0].sum(), others_3xB[1].sum(), either_B.sum(), (either_B > 0).sum()]
    same_class, same_caption, either, affected = (sums_4 / (batches * batch_size)).tolist()
    return FalseNegatives(
        batch_size=batch_size,
        batches=batches,
        same_class=same_class,
        same_caption=same_caption,
        either=either,
        share=either / (batch_size - 1),
        affected=affected,
    )
