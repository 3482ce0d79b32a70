"""The one error that a caller shows as a single line."""

from __future__ import annotations

from study.errors import UserError


class AnalysisError(UserError, ValueError):
    """Records that cannot be read or drawn; the message is one line that says how to fix it."""
