"""Branches: cells that go on from a checkpoint of another cell of their study."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from study.config.base import CONFIG, Positive


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Branch:
    """The state that a cell starts from, see `study.config.branch_from`.

    Parameters and moments are the parent's, and the stream goes on where the parent was. Steps and
    budget are the branch's own and begin at 0, and so does the schedule without
    `Optimizer.schedule_examples`; dropout and random negatives are drawn anew. So branches of one
    checkpoint that differ in their batch size see the same examples in the same order, from the
    same state, as in Merrill et al. (arXiv 2505.23971).

    Attributes:
      cell: Id of the parent.
      step: The step of the parent after which its state is taken; it keeps a checkpoint there
        with `Execution.keep_every_percent`.
      examples: Position in the stream where the branch begins: those that the parent had seen,
        and those before the parent's own branch.
      bias_shift: Added to the bias of the loss, in nats. A learned bias holds the log odds of a
        positive at the parent's batch size, which is wrong at another one; see `branch_from`.
    """

    cell: str
    step: Positive
    examples: Positive
    bias_shift: float = 0.0
