"""study run fig-6

Batch composition (Sec. 4.8): SigLiT at 16k and 900M examples, negatives masked to five ratios of
positives to negatives. 15 cells: unmasked (Table 8's), random, hard and easy at four ratios, and
hard with matched pairs at two.
"""

from __future__ import annotations

from study.config import Budget, Cell, Negatives, Sigmoid
from sweeps.grids.paper import assumptions as assumed
from sweeps.grids.paper.recipe import MILLION, K, paper_study, siglit_cell
from sweeps.study import Assumption, Matched, Study, match_budget

BATCH_SIZE, EXAMPLES = 16 * K, 900 * MILLION
KEPT = (10, 100, 1000, 10_000)  # one negative in so many: 1:1.6k, 1:164, 1:16 and 1:1.6
MATCHED = (10, 100)

ASSUMPTIONS = (
    *assumed.SIGLIT,
    Assumption(
        "examples", "900M", "The paper prints 900 M steps, 300 times what any run of it has."
    ),
    Assumption(
        "which are hardest", "over the whole batch", "Or by image row: not stated (`scope`)."
    ),
    Assumption(
        "masked loss",
        "divided by the batch size, as unmasked",
        "Algorithm 1; no other rule is given.",
    ),
    Assumption("b_init", "-10", "The default; not restated for masked batches."),
    Assumption(
        "matched pairs",
        "1:1.6k and 1:164, 9B and 89B examples",
        "Which ratios were run is not stated; the next would be 855B examples.",
    ),
)


def unmasked() -> Cell:
    return siglit_cell(batch_size=BATCH_SIZE, examples=EXAMPLES)


def masked(*, keep: str, one_in: int, budget: Budget | None = None) -> Cell:
    pairs = Negatives(keep=keep, per_positive=(BATCH_SIZE - 1) / one_in)  # type: ignore[arg-type]
    return siglit_cell(
        batch_size=BATCH_SIZE, examples=EXAMPLES, loss=Sigmoid(pairs=pairs), budget=budget
    )


def same_examples() -> tuple[Cell, ...]:
    kinds = ("random", "hard", "easy")
    return (unmasked(), *(masked(keep=k, one_in=n) for k in kinds for n in KEPT))


def same_pairs() -> tuple[Cell, ...]:
    """Hard negatives for so much longer that they meet as many pairs as the unmasked run."""
    pairs = match_budget(unmasked(), "pairs")
    return (unmasked(), *(masked(keep="hard", one_in=n, budget=pairs) for n in MATCHED))


def cells() -> list[Cell]:
    return [*same_examples(), *same_pairs()[1:]]


def study() -> Study:
    return paper_study(
        name="fig-6",
        question="Which negatives matter, and does their number?",
        cells=cells(),
        paper="Fig. 6",
        assumptions=ASSUMPTIONS,
        matched=(
            Matched(by="examples", cells=same_examples()),
            Matched(by="pairs", cells=same_pairs()),
        ),
    )
