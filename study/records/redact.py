"""Keeps keys and tokens out of records, logs and messages.

Imports the standard library only: `sweeps.runner.log_pump` loads this file by its path.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator, Mapping

_NAMES = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
_LEAST = 8  # characters: a shorter value is not a key, and would match ordinary text
LONGEST = 8192  # characters: a longer secret may be missed where a stream is cut

# Group 1 is kept. Values exclude `<`, which begins the name of a value that is already hidden.
_FORMS = [
    re.compile(form)
    for form in (
        r"(hf_)[A-Za-z0-9]{16,}",  # Hugging Face
        r"(api_org_)[A-Za-z0-9]{16,}",
        r"(wandb_v[0-9]+_)[A-Za-z0-9_]{16,}",
        r"(gh[opsur]_|github_pat_)[A-Za-z0-9_]{16,}",
        r"(AKIA|ASIA|GOOG1?)[0-9A-Z]{16,}",  # ids of AWS keys and Google's HMAC keys
        r"(AIza)[0-9A-Za-z_-]{35}",
        r"(ya29\.)[0-9A-Za-z_.-]{16,}",  # OAuth tokens of Google
        r"(eyJ)[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",  # JSON web tokens
        r"([Bb]earer +)[A-Za-z0-9._~+/=-]{16,}",
        r"([Aa]uthorization[\"']?[:=] *[\"']?(?:[A-Za-z]+ +)?)[^\s\"'<>,;]{8,}",
        r"([?&](?:[Xx]-(?:[Gg]oog|[Aa]mz)-(?:[Ss]ignature|[Cc]redential|[Ss]ecurity-[Tt]oken)"
        r"|[Ss]ignature|sig|key|token|access_token)=)[^\s\"'<>&]{8,}",  # signed URLs
        r"(://[^\s/:@]+:)[^\s/@<]{4,}(?=@)",
        r"((?:password|passwd) +)[^\s\"'<>,;&]{8,}",  # as in a netrc file
        r"(-----BEGIN [A-Z ]*PRIVATE KEY-----)(?:(?!-----END)[^<])+",
    )
]
# Forms that other text also has: the text before them on their line decides.
_BY_CONTEXT = [
    (re.compile(form), re.compile(context, re.IGNORECASE))
    for form, context in (
        # A key of wandb looks like a hash of git.
        (r"(?<![0-9A-Za-z])[0-9a-f]{40}(?![0-9A-Za-z])", r"wandb|w&b|key|token|login|password"),
        (
            r"(?<=[:=\"' ])[^\s\"'<>,;:=&]{12,}",
            r"(api|access|secret)[ _-]?key(id)?[\"']?( *[:=] *| )[\"']?$"
            r"|(auth|access|session|bearer|refresh|id)[ _-]?token[\"']? *[:=] *[\"']?$"
            r"|(client_?secret|passw(or)?d|secret)[\"']? *[:=] *[\"']?$"
            r"|(?-i:(KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL)[A-Z0-9_]*)[\"']? *[:=] *[\"']?$",
        ),
    )
]
_NEAR = 100  # characters
# Every line that a context matches has one of these words, which are quick to find.
_WORDS = ("key", "token", "secret", "passw", "credential", "wandb", "w&b", "login")


def redact(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """Replaces secrets in `text`.

    The value of a variable that is named like a secret becomes the variable's name; anything else
    in the form of a key or token becomes "<hidden>".

    >>> redact("no user has 0123456789abcdef", {"WANDB_API_KEY": "0123456789abcdef"})
    'no user has <WANDB_API_KEY>'
    >>> redact("GET https://host/file?X-Goog-Signature=0123456789abcdef", {})
    'GET https://host/file?X-Goog-Signature=<hidden>'
    """
    values, names = _values(environ)
    if names:
        text = values.sub(lambda match: f"<{names[match.group()]}>", text)
    for form in _FORMS:
        text = form.sub(r"\1<hidden>", text)
    if _has_word(text):
        text = "\n".join(map(_redact_by_context, text.split("\n")))
    return text


def safe_cut(text: str, cut: int, environ: Mapping[str, str] = os.environ) -> int:
    """The last position up to `cut` that does not cut a secret in `text` in two."""
    for match in sorted(_matches(text, environ), key=lambda match: -match.start()):
        if match.start() < cut < match.end():
            cut = match.start()
    return cut


def _matches(text: str, environ: Mapping[str, str]) -> Iterator[re.Match[str]]:
    values, names = _values(environ)
    for form in [*_FORMS, *(form for form, _ in _BY_CONTEXT), *([values] if names else [])]:
        yield from form.finditer(text)


def _has_word(text: str) -> bool:
    text = text.lower()
    return any(word in text for word in _WORDS)


def _redact_by_context(line: str) -> str:
    if not _has_word(line):
        return line
    for form, context in _BY_CONTEXT:
        line = form.sub(functools.partial(_redact_after, context), line)
    return line


def _redact_after(context: re.Pattern[str], match: re.Match[str]) -> str:
    near = context.search(match.string, max(0, match.start() - _NEAR), match.start())
    return "<hidden>" if near else match.group()


def _values(environ: Mapping[str, str]) -> tuple[re.Pattern[str], dict[str, str]]:
    return _compiled(tuple((k, v) for k, v in environ.items() if _NAMES.search(k)))


@functools.lru_cache(maxsize=4)
def _compiled(named: tuple[tuple[str, str], ...]) -> tuple[re.Pattern[str], dict[str, str]]:
    """A pattern of the values, and the name of each; each line of a value is one, too."""
    names: dict[str, str] = {}
    for name, value in named:
        for part in {value, value.strip(), *value.splitlines()}:
            if len(part) >= _LEAST:
                names[part] = name
    longest_first = sorted(names, key=len, reverse=True)  # one may contain another
    return re.compile("|".join(map(re.escape, longest_first))), names
