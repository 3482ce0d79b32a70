"""Every claim that is tested: the sentence, the cells it needs, the test.

They are the paper's, and a few of our own (section "ours") on what the paper does not vary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from analysis.claims import (
    batch,
    composition,
    corruption,
    languages,
    matched_pairs,
    pairs_map,
    recipe,
)
from analysis.claims.duration import best_batch_grows, long_training_for_large
from analysis.claims.evidence import Evidence
from analysis.claims.initial import default_is_best, prior_is_no_worse
from analysis.claims.verdict import Finding


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One sentence, the paper's in our words or our own, and the test that decides it.

    needs: the cells it is about, by their fields.
    """

    name: str
    sentence: str
    section: str
    needs: str
    test: Callable[[Evidence], Finding]


SIGLIT = "sigmoid and softmax by batch_size with model.image.kind=cached, two seeds"
SIGLIP = "sigmoid and softmax by batch_size with model.image.kind=vit, two seeds"
MASKED = "loss.pairs.kind=negatives at several per_positive beside all pairs, one batch_size"

BATCH = (
    Claim(
        name="sigmoid ahead at small batch",
        sentence="With small batches the sigmoid loss is clearly better than the softmax loss.",
        section="4.1",
        needs=SIGLIT,
        test=batch.on("cached", batch.ahead_at_small),
    ),
    Claim(
        name="gap closes with batch",
        sentence="As the batch grows, the gap between the losses closes.",
        section="4.1",
        needs=SIGLIT,
        test=batch.on("cached", batch.gap_closes),
    ),
    Claim(
        name="losses level at large batch",
        sentence="With large batches the two losses are about level.",
        section="4.1",
        needs=SIGLIT,
        test=batch.on("cached", batch.level_at_large),
    ),
    Claim(
        name="quality saturates",
        sentence="From a batch of 32k on there is little left to gain.",
        section="4.1",
        needs=SIGLIT,
        test=batch.on("cached", batch.saturates),
    ),
    Claim(
        name="too large a batch hurts",
        sentence="At a fixed budget, a batch beyond the best one lowers the quality.",
        section="4.1, 4.2",
        needs=SIGLIT,
        test=batch.on("cached", batch.too_large_hurts),
    ),
    Claim(
        name="large batch needs long training",
        sentence="A large batch is behind a small one when training is short, ahead when long.",
        section="4.1",
        needs="sigmoid at two batch sizes 32 times apart, each at a short and a long "
        "budget.examples, model.image.kind=cached",
        test=long_training_for_large,
    ),
    Claim(
        name="from scratch: sigmoid ahead",
        sentence="With both towers trained, sigmoid is ahead of softmax at small batches.",
        section="4.2",
        needs=SIGLIP,
        test=batch.on("vit", batch.ahead_at_small),
    ),
    Claim(
        name="from scratch: gap closes",
        sentence="With both towers trained, the gap between the losses closes as the batch grows.",
        section="4.2",
        needs=SIGLIP,
        test=batch.on("vit", batch.gap_closes),
    ),
    Claim(
        name="from scratch: saturates",
        sentence="With both towers trained, 32k is a batch that is large enough.",
        section="4.2",
        needs=SIGLIP,
        test=batch.on("vit", batch.saturates),
    ),
    Claim(
        name="from scratch: too large hurts",
        sentence="With both towers trained, too large a batch lowers the quality.",
        section="4.2",
        needs=SIGLIP,
        test=batch.on("vit", batch.too_large_hurts),
    ),
    Claim(
        name="languages gain nothing past 32k",
        sentence="Multilingual retrieval does not gain from batches beyond 32k.",
        section="4.3",
        needs="sigmoid by batch_size with an eval of kind multilingual",
        test=languages.no_gain_past_enough,
    ),
)
COMPOSITION = (
    Claim(
        name="dropping random negatives hurts",
        sentence="Fewer negatives, dropped at random, lower the quality.",
        section="4.8",
        needs=f"{MASKED}, keep=random",
        test=composition.on_panel(composition.random_hurts),
    ),
    Claim(
        name="easy negatives alone fail",
        sentence="Keeping only the easiest negatives does not work.",
        section="4.8",
        needs=f"{MASKED}, keep=easy and random",
        test=composition.on_panel(composition.easy_fails),
    ),
    Claim(
        name="hard negatives nearly keep quality",
        sentence="Keeping only the hardest negatives nearly maintains the quality.",
        section="4.8",
        needs=f"{MASKED}, keep=hard and random",
        test=composition.on_panel(composition.hard_keeps),
    ),
    Claim(
        name="matched pairs help",
        sentence="Hard negatives, trained until as many pairs were met, beat the whole batch.",
        section="4.8",
        needs=f"{MASKED}, keep=hard with budget.pairs as many as the whole batch meets",
        test=matched_pairs.hard_gains("pairs_seen"),
    ),
    Claim(
        name="... beyond the longer training",
        sentence="They beat the whole batch at as many examples too (the paper does not say so).",
        section="ours",
        needs=f"{MASKED}, keep=hard at matched pairs, and all pairs at as many examples",
        test=matched_pairs.hard_gains("examples_seen"),
    ),
    Claim(
        name="bias rises as negatives fall",
        sentence="With fewer random negatives the learned bias becomes more positive.",
        section="4.8",
        needs=f"{MASKED}, keep=random",
        test=composition.on_panel(composition.bias_rises),
    ),
    Claim(
        name="positive logits rise",
        sentence="With fewer random negatives the logits of positives become more positive.",
        section="4.8",
        needs=f"{MASKED}, keep=random",
        test=composition.on_panel(composition.positives_rise),
    ),
    Claim(
        name="negative logits rise",
        sentence="With fewer random negatives the logits of negatives become more positive.",
        section="4.8",
        needs=f"{MASKED}, keep=random",
        test=composition.on_panel(composition.negatives_rise),
    ),
    Claim(
        name="hard: positive logits flat",
        sentence="With hard negatives the logits of positives stay mostly flat.",
        section="4.8",
        needs=f"{MASKED}, keep=hard and random",
        test=composition.on_panel(composition.hard_is_flat),
    ),
)
RECIPE = (
    Claim(
        name="b = -10, t' = log 10 is best",
        sentence="Starting at b = -10 and t' = log 10 beats other starts.",
        section="4.9",
        needs="sigmoid by loss.b_init and loss.t_init, equal in the rest",
        test=default_is_best,
    ),
    Claim(
        name="decay on a pretrained tower hurts",
        sentence="Weight decay on a pretrained image tower lowers its quality.",
        section="4.5",
        needs="model.init set, optimizer.image.decay_times 0 and 1",
        test=recipe.decay_hurts,
    ),
    Claim(
        name="beta2 0.95 is steadier",
        sentence="Training is steadier with beta2 = 0.95 than with 0.999.",
        section="4.7",
        needs="optimizer.b2 0.95 and 0.999, equal in the rest, two seeds",
        test=recipe.lower_b2_is_steadier,
    ),
)
CORRUPTION = tuple(
    Claim(
        name=f"corrupted {kind}",
        sentence=f"The more of {kind} is corrupted, the further sigmoid is ahead of softmax.",
        section="4.10",
        needs=f"both losses without data.corrupt and with {kind} corrupted, two seeds",
        test=corruption.more_robust(kind),
    )
    for kind in corruption.KINDS
)
MAP = "sigmoid with loss.pairs.kind=groups of several sizes at several batch_size"
OURS = (
    Claim(
        name="best batch grows with the budget",
        sentence="Some batch is behind a smaller one when training is short, ahead when long.",
        section="ours",
        needs="sigmoid at two batch sizes, each at a short and a long budget.examples, "
        "model.image.kind=cached",
        test=best_batch_grows,
    ),
    Claim(
        name="pairs per example help",
        sentence="At equal examples per step, quality rises with the pairs that an example meets.",
        section="ours",
        needs=MAP,
        test=pairs_map.pairs_help,
    ),
    Claim(
        name="examples per step help",
        sentence="At equal pairs per example and equal examples in all, larger steps are better.",
        section="ours",
        needs=MAP,
        test=pairs_map.examples_help,
    ),
    Claim(
        name="pairs matter more than examples",
        sentence="A doubling of pairs per example gains more than one of examples per step.",
        section="ours",
        needs=MAP,
        test=pairs_map.pairs_more_than_examples,
    ),
    Claim(
        name="prior odds start as well",
        sentence="At every batch size the prior log odds are as good a start of the bias as -10.",
        section="ours",
        needs="sigmoid with all pairs from loss.b_init=prior and -10, equal in the rest",
        test=prior_is_no_worse,
    ),
    Claim(
        name="corrupted: at the best rate too",
        sentence="With the best rate for each loss and corruption, sigmoid's lead grows with it.",
        section="ours",
        needs="both losses at several optimizer.learning_rate with and without data.corrupt",
        test=corruption.tuned_is_more_robust,
    ),
    Claim(
        name="corrupted: distinct examples help",
        sentence="With more distinct examples, corruption moves the lead further to sigmoid.",
        section="ours",
        needs="both losses with and without data.corrupt on two data.dataset, equal in the rest",
        test=corruption.more_examples_help,
    ),
    Claim(
        name="corrupted: on scenes of two",
        sentence="Where examples are scenes of two glyphs, sigmoid's lead grows with corruption.",
        section="ours",
        needs=f"both losses with and without data.corrupt, data.dataset={corruption.SCENES}",
        test=corruption.holds_on_scenes,
    ),
)
CLAIMS = (*BATCH, *COMPOSITION, *RECIPE, *CORRUPTION, *OURS)
