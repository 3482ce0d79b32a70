"""The settings that the paper does not state, or states twice, and the values taken here.

Each assumption has a name, the value that the grids take and the reason. "Code base" is
google-research/big_vision, the authors' own.
"""

from __future__ import annotations

from sweeps.study import Assumption

# --- all set-ups ----------------------------------------------------------------------------------

CLIP_NORM = Assumption(
    "clip_norm",
    "1.0",
    "The paper does not mention clipping; the code base's public configs clip at 1.",
)
PRECISION = Assumption(
    "model.dtype",
    "bfloat16",
    "Not stated; usual on TPU. Parameters, norms, embeddings and the loss stay float32.",
)
SOFTMAX_T = Assumption(
    "softmax t_init",
    "10",
    "Given for sigmoid only; the code base's configs start both losses at 10.",
)
RESIZE = Assumption(
    "data.resize",
    "bilinear, no antialiasing, no flip",
    "The paper only says that images are resized; this is the code base's operation.",
)
SEED = Assumption("seed", "0", "Seeds are not given; one run per cell except in Table 7.")
LOWER_CASE = Assumption(
    "data.lower_case",
    "ascii",
    "Not stated; the code base lower-cases A to Z only.",
)
CROP = Assumption(
    "evaluation",
    "central crop 0.875, canonical prompts, ImageNet `val`",
    "As in the code base's evaluator.",
)
WHOLE = Assumption(
    "evaluation of cached embeddings",
    "whole images, canonical prompts, ImageNet `val`",
    "The code base's evaluator crops to the central 0.875; cached embeddings are of whole images.",
)
EMBEDDINGS = Assumption(
    "embeddings",
    "bilinear, no antialiasing, no flip (`study data embed --resize bilinear`)",
    "The paper only says that images are resized; this is the code base's operation. tower.json "
    "records it.",
)
CURVES = Assumption(
    "extra evaluations",
    "zero-shot every 10 %, a loss on a fixed batch of split `val` every 5 %",
    "Added here: steps to a target need a measure that does not depend on the batch size.",
)
SLICE = Assumption(
    "execution.slice",
    "v4-8 to v4-256 by model and batch size",
    "The paper gives chips for Table 1 but not for its sweeps. They do not change results.",
)
COMMON = (CLIP_NORM, PRECISION, SEED, LOWER_CASE, CURVES, SLICE)

# --- SigLiT ---------------------------------------------------------------------------------------

WIDTH = Assumption(
    "model.embed_dim",
    "1408",
    "In LiT the frozen tower has no head, so the text head projects to the width of g/14.",
)
LIT_DATA = Assumption(
    "data.dataset",
    "lit",
    "The paper uses LiT's 4 billion pairs, which are not public; use your own pairs.",
)
SIGLIT = (*COMMON, WHOLE, EMBEDDINGS, SOFTMAX_T, WIDTH, LIT_DATA)
MILLION = Assumption(
    "batch size 1024k",
    "1,048,576",
    "All other labels count in units of 1024; the prose says one million.",
)

# --- SigLIP ---------------------------------------------------------------------------------------

WARMUP = Assumption(
    "warmup_examples",
    "200M",
    "Stated for SigLiT only; SigLIP's other defaults are the same. (SigLIP 2 has 20k steps at 32k, "
    "655M examples.)",
)
SIGLIP = (*COMMON, CROP, SOFTMAX_T, RESIZE, WARMUP)
ODD_SIZES = Assumption(
    "batch sizes 98k and 307k",
    "98,304 and 307,200",
    "96 and 300 times 1024, consistent with the figure's ticks at 98 and 307 thousand.",
)
MULTILINGUAL = (
    *COMMON,
    CROP,
    RESIZE,
    WARMUP,
    Assumption(
        "languages",
        "all 36 of the data set",
        "Crossmodal-3600 writes Hebrew as he; the paper's table prints iw.",
    ),
)
