"""Evaluations: each a function of frozen parameters and a held-out split.

They use fixed sets of examples whatever the training batch size, so their numbers compare
across a study.
"""

from __future__ import annotations

from study.evals.evaluator import Evaluator, Result

__all__ = ["Evaluator", "Result"]
