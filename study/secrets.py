"""Keys and tokens stay out of records, logs and messages, whoever quotes them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

_NAMES = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
_LEAST = 8  # characters: a shorter value is no key, and would be found in any text


def hide(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """`text` with the value of each variable that is named like a secret replaced by its name.

    >>> hide("no user has 0123456789abcdef", {"WANDB_API_KEY": "0123456789abcdef"})
    'no user has <WANDB_API_KEY>'
    """
    found = {v: k for k, v in environ.items() if _NAMES.search(k) and len(v) >= _LEAST}
    for value in sorted(found, key=len, reverse=True):  # one may hold another
        text = text.replace(value, f"<{found[value]}>")
    return text
