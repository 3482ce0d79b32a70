"""Contrastive losses over a whole global batch.

Every loss here has one shape: unit-norm embeddings `zimg_BxD`, `ztxt_BxD` and the scalars it
learns in, `(loss, LogitStats)` out, differentiable in all of them. Row i of both is a positive.
"""

from study.losses.sigmoid import sigmoid_loss
from study.losses.softmax import softmax_loss
from study.losses.tiled import LogitStats

__all__ = ["LogitStats", "sigmoid_loss", "softmax_loss"]
