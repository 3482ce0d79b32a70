"""study run fig-6

Batch composition (Sec. 4.8): SigLiT at 16k and 900M examples, with negatives masked to five ratios
of positives to negatives. 15 cells: the unmasked one (Table 8's); random, hard and easy negatives
at four ratios; hard negatives with matched pairs at two.
"""

from __future__ import annotations

from typing import Literal

from study.config import Budget, Cell, Negatives, Sigmoid
from sweeps.grids.paper import assumptions
from sweeps.grids.paper.recipe import MILLION, K, paper_study, siglit_cell
from sweeps.study import Assumption, Matched, Study, match_budget

BATCH_SIZE, EXAMPLES = 16 * K, 900 * MILLION
KEEP: tuple[Literal["random", "hard", "easy"], ...] = ("random", "hard", "easy")
ONE_IN = (10, 100, 1000, 10_000)  # negatives kept; 1:1.6k, 1:164, 1:16 and 1:1.6 in the figure
MATCHED_ONE_IN = (10, 100)

ASSUMPTIONS = (
    *assumptions.SIGLIT,
    Assumption(
        "examples",
        "900M",
        "The paper prints 900 M steps, 300 times the steps of any other run in it.",
    ),
    Assumption(
        "which negatives are hardest",
        "those of the whole batch",
        "Or those of each image's row: not stated (`scope`).",
    ),
    Assumption(
        "masked loss",
        "divided by the batch size, as unmasked",
        "As in Algorithm 1; no other rule is given.",
    ),
    Assumption("b_init", "-10", "The default; not restated for masked batches."),
    Assumption(
        "matched pairs",
        "1:1.6k and 1:164, 9B and 89B examples",
        "The ratios are not stated; the next one would take 855B examples.",
    ),
)


def masked(
    *, keep: Literal["random", "hard", "easy"], one_in: int, budget: Budget | int = EXAMPLES
) -> Cell:
    pairs = Negatives(keep=keep, per_positive=(BATCH_SIZE - 1) / one_in)
    return siglit_cell(batch_size=BATCH_SIZE, budget=budget, loss=Sigmoid(pairs=pairs))


def study() -> Study:
    unmasked = siglit_cell(batch_size=BATCH_SIZE, budget=EXAMPLES)
    same_examples = [masked(keep=keep, one_in=one_in) for keep in KEEP for one_in in ONE_IN]
    # Hard negatives, trained until they have met as many pairs as the unmasked run.
    as_many_pairs = match_budget(unmasked, "pairs")
    same_pairs = [
        masked(keep="hard", one_in=one_in, budget=as_many_pairs) for one_in in MATCHED_ONE_IN
    ]
    return paper_study(
        name="fig-6",
        question="Which negatives matter, and does their number?",
        cells=[unmasked, *same_examples, *same_pairs],
        paper="Fig. 6",
        assumptions=ASSUMPTIONS,
        matched=(
            Matched(by="examples", cells=(unmasked, *same_examples)),
            Matched(by="pairs", cells=(unmasked, *same_pairs)),
        ),
    )
