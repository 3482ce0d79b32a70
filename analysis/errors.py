"""The error that analysis raises for bad input."""

from __future__ import annotations

from study.errors import UserError


class AnalysisError(UserError, ValueError):
    """Records that cannot be read or drawn. The message is one line with a remedy."""
