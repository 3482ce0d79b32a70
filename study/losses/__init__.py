"""Contrastive losses over a whole global batch.

A loss takes unit-norm embeddings `zimg_BxD` and `ztxt_BxD`, whose rows i are a positive, and its
learned scalars. It returns `(loss, LogitStats)` and is differentiable in all of these. To read how
it works: `tiles.py` and `tiled.py` (one device), then `ring.py` (many), then `sigmoid.py`.
"""

from study.losses.sigmoid import count_kept, sigmoid_loss
from study.losses.softmax import softmax_loss
from study.losses.tiled import LogitStats

__all__ = ["LogitStats", "count_kept", "sigmoid_loss", "softmax_loss"]
