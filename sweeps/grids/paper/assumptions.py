"""What the paper does not state (or states twice) and these grids therefore assume.

Each has a name, the value that the grids take, and the reason. "Code base" is
google-research/big_vision, the authors' own.
"""

from __future__ import annotations

from sweeps.study import Assumption

# --- all set-ups ----------------------------------------------------------------------------------

CLIP_NORM = Assumption(
    "clip_norm", "1.0", "The paper does not mention clipping; the code base's public configs clip."
)
PRECISION = Assumption(
    "model.dtype",
    "bfloat16",
    "Not stated; usual on TPU. Parameters, norms, embeddings and the loss stay float32.",
)
SOFTMAX_T = Assumption(
    "softmax t_init",
    "10",
    "Only sigmoid's is given; the code base's configs start both losses at 10.",
)
RESIZE = Assumption(
    "data.resize", "bilinear, no antialias, no flip", "The paper says resized; the code base's op."
)
SEED = Assumption("seed", "0", "Seeds are not given; one run each but in Table 7.")
LOWER_CASE = Assumption(
    "data.lower_case", "ascii", "The paper does not say; the code base lowers A to Z alone."
)
CROP = Assumption(
    "evaluation",
    "central crop 0.875, canonical prompts, ImageNet `val`",
    "The code base's evaluator.",
)
WHOLE = Assumption(
    "evaluation of cached embeddings",
    "whole images, canonical prompts, ImageNet `val`",
    "The code base's evaluator crops to the central 0.875; embeddings are of whole images.",
)
EMBEDDINGS = Assumption(
    "embeddings",
    "bilinear, no antialias, no flip (`study data embed --resize bilinear`)",
    "The paper says resized; the code base's op. tower.json records it.",
)
CURVES = Assumption(
    "extra evaluations",
    "zero-shot every 10 %, a loss on a fixed batch of split `val` every 5 %",
    "Not the paper's: steps to a target need a measure that no batch size changes.",
)
SLICE = Assumption(
    "execution.slice",
    "v4-8 to v4-256 by model and batch size",
    "Chips of the sweeps are not given; Table 1's are. It changes no result.",
)
COMMON = (CLIP_NORM, PRECISION, SEED, LOWER_CASE, CURVES, SLICE)

# --- SigLiT ---------------------------------------------------------------------------------------

WIDTH = Assumption(
    "model.embed_dim",
    "1408",
    "The frozen tower has no head in LiT, so the text head goes to the width of g/14.",
)
LIT_DATA = Assumption(
    "data.dataset", "lit", "LiT's own 4 billion pairs, which are not public: bring your own pairs."
)
SIGLIT = (*COMMON, WHOLE, EMBEDDINGS, SOFTMAX_T, WIDTH, LIT_DATA)
MILLION = Assumption(
    "batch size 1024k",
    "1,048,576",
    "Powers of two are binary in all other labels; the prose says one million.",
)

# --- SigLIP ---------------------------------------------------------------------------------------

WARMUP = Assumption(
    "warmup_examples",
    "200M",
    "Stated for SigLiT only; taken for SigLIP, whose other defaults are the same. (SigLIP 2 has "
    "20k steps at 32k, 655M examples.)",
)
SIGLIP = (*COMMON, CROP, SOFTMAX_T, RESIZE, WARMUP)
ODD_SIZES = Assumption(
    "batch sizes 98k and 307k",
    "98,304 and 307,200",
    "96 and 300 times 1024, as the figure's ticks 98 and 307 thousand allow.",
)
MULTILINGUAL = (
    *COMMON,
    CROP,
    RESIZE,
    WARMUP,
    Assumption(
        "languages",
        "those of the data set, all 36",
        "Crossmodal-3600 writes Hebrew as he; the paper's table prints iw.",
    ),
)
