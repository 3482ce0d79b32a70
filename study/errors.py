"""The base class of errors that a user can fix."""


class UserError(Exception):
    """Bad input. The message names what is wrong and how to fix it; no traceback is shown."""
