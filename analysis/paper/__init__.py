"""What the paper prints: its numbers, and where its text and its own numbers disagree.

The numbers are part of the package, so they are there wherever it is installed.
"""

from __future__ import annotations

from analysis.paper.reference import (
    BENCHMARKS,
    benchmark,
    fig_2,
    measured_on,
    of,
    provenance,
    reference,
)

__all__ = ["BENCHMARKS", "benchmark", "fig_2", "measured_on", "of", "provenance", "reference"]
