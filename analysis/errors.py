"""The one error that a caller shows as a single line."""


class AnalysisError(ValueError):
    """Records that cannot be read or drawn; the message is one line that says how to mend it."""
