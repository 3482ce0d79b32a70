"""The error of data that cannot be used."""

from __future__ import annotations

from study.errors import UserError

HINT = "write the data set again (`study data glyphs --out ... --force`) or download it again"


class DataError(UserError, ValueError):
    """Data that cannot be used: one line that names the problem and the fix."""
