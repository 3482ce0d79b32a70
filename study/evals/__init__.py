"""Evaluations of a cell's parameters on held-out splits.

They use the same examples for every batch size, so their numbers compare across a study.
"""

from __future__ import annotations

from study.evals.evaluator import Evaluator, Result

__all__ = ["Evaluator", "Result"]
