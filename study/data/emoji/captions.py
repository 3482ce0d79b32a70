"""Names and keywords of emoji in 36 languages, and the captions made of them."""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import re
from pathlib import Path

import numpy as np

from study.data import rng
from study.data.emoji.drawings import emoji_key
from study.data.emoji.packages import CLDR, read_json

# As Crossmodal-3600 writes them, in the order of the paper's Table 9, which prints "iw" for "he".
# fmt: off
LANGUAGES = (
    "ar", "bn", "cs", "da", "de", "el", "en", "es", "fa", "fi", "fil", "fr", "hi", "hr", "hu", "id",
    "it", "he", "ja", "ko", "mi", "nl", "no", "pl", "pt", "quz", "ro", "ru", "sv", "sw", "te", "th",
    "tr", "uk", "vi", "zh",
)
# From the most frequent to the rarest on the web, roughly; the split `train_web` draws a language
# with a probability in proportion to 1 / rank.
BY_WEB_SHARE = (
    "en", "es", "de", "ja", "fr", "pt", "ru", "it", "nl", "pl", "tr", "zh", "fa", "vi", "cs", "ko",
    "id", "uk", "hu", "ar", "sv", "ro", "el", "da", "fi", "he", "no", "th", "hr", "hi", "bn", "te",
    "fil", "sw", "mi", "quz",
)
# fmt: on
_CLDR_CODE = {"quz": "qu"}
NAME_SHARE, MOST_KEYWORDS = 0.5, 3

# Each word of a held-out emoji's English name occurs in the captions of this many others.
WORD_EMOJI = 3


@dataclasses.dataclass(frozen=True)
class Words:
    """What one language calls an emoji."""

    name: str
    keywords: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Captions:
    """The words for each emoji in each language that has a name for it."""

    words: dict[str, dict[str, Words]]  # by language, then emoji

    @classmethod
    def read(cls, packages: Path) -> Captions:
        files = [f"annotations/{_CLDR_CODE.get(x, x)}/annotations.json" for x in LANGUAGES]
        words = {}
        for language, content in zip(LANGUAGES, read_json(packages, CLDR, files), strict=True):
            words[language] = {
                key: Words(entry["tts"][0], tuple(entry.get("default") or entry["tts"]))
                for characters, entry in content["annotations"]["annotations"].items()
                if entry.get("tts") and (key := emoji_key(_code_points(characters))) is not None
            }
        return cls(words=words)

    def names(self, emoji: str) -> dict[str, list[str]]:
        """The name in each language that has one, in the form of a multilingual benchmark."""
        return {lang: [of[emoji].name] for lang, of in self.words.items() if emoji in of}

    def texts(self, emoji: list[str]) -> list[str]:
        """All names and keywords of these emoji, each once, sorted."""
        chosen = [of[key] for of in self.words.values() for key in emoji if key in of]
        return sorted({text for words in chosen for text in (words.name, *words.keywords)})

    def draw(self, emoji: str, language: str, draws: list[int]) -> tuple[str, str] | None:
        """A caption and its kind: the name, or some keywords in any order.

        Arguments:
          draws: five 64-bit words.

        Returns:
          None if the language has no name for this emoji.
        """
        words = self.words[language].get(emoji)
        if words is None:
            return None
        kind, count, *order = draws
        if kind < NAME_SHARE * 2**64:
            return words.name, "name"
        left, chosen = list(words.keywords), []
        for draw in order[: 1 + count % MOST_KEYWORDS]:
            if left:
                chosen.append(left.pop(draw % len(left)))
        return ", ".join(chosen), "keywords"


@functools.cache
def web_shares() -> np.ndarray:
    """The cumulative probability of each language in `train_web`, in the order of LANGUAGES."""
    rank_L = np.array([1 + BY_WEB_SHARE.index(language) for language in LANGUAGES])
    return np.cumsum(1 / rank_L) / np.sum(1 / rank_L)


def draws(split: str, image: int, numbers: int) -> np.ndarray:
    """Six 64-bit words for each row of an image, uint64 `numbers` x 6, from hashes."""
    salt = np.frombuffer(hashlib.sha256(split.encode()).digest()[:8], np.uint64)
    key_N = (np.uint64(image) << np.uint64(16)) | np.arange(numbers, dtype=np.uint64)
    return rng.streams(rng.mix64(key_N + rng.GOLDEN_GAMMA) ^ salt, 6)


def hold_out(emoji: list[str], captions: Captions, count: int) -> frozenset[str]:
    """Up to `count` emoji whose English names consist of words that others have too."""
    english = captions.words["en"]
    words = {key: set(_words(english[key].name)) for key in emoji}
    uses = collections.Counter(
        word for key in emoji for word in words[key].union(*map(_words, english[key].keywords))
    )
    held: set[str] = set()
    for key in sorted(emoji, key=lambda key: hashlib.sha256(f"hold out {key}".encode()).digest()):
        if len(held) == count:
            break
        if all(uses[word] > WORD_EMOJI for word in words[key]):
            held.add(key)
            uses.subtract(words[key].union(*map(_words, english[key].keywords)))
    return frozenset(held)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _code_points(characters: str) -> str:
    return "-".join(f"{ord(character):x}" for character in characters)
