"""Text to token ids: SentencePiece, lower case, "sticky" EOS, as the paper's code base does."""

from __future__ import annotations

import hashlib
import io
import string
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from study.config.cell import Data, LowerCase, Pad
from study.config.vocabulary import Vocabulary
from study.data.formats.dataset import HINT, DataError, Dataset

PAD, EOS, UNKNOWN = 0, 1, 2  # the ids of the paper's C4 tokenizer
_LONGEST_PIECE = 16


def train_tokenizer(texts: Iterable[str], *, vocabulary: int = 2000) -> bytes:
    """A unigram model of lower-cased texts, the same bytes for the same texts.

    A small corpus may give fewer pieces than `vocabulary`.
    """
    lower = [text.lower() for text in texts]
    model = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        seeds = Path(folder) / "seeds.tsv"
        seeds.write_text(_seeds(lower), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lower),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocabulary,
            hard_vocab_limit=False,
            character_coverage=1.0,
            split_digits=True,
            seed_sentencepieces_file=str(seeds),
            pad_id=PAD,
            eos_id=EOS,
            unk_id=UNKNOWN,
            bos_id=-1,
            num_threads=1,  # the order of sums is part of the result
            minloglevel=2,
        )
    # The model notes how it was trained, and so the name of a file that is gone.
    proto = sentencepiece_model_pb2.ModelProto.FromString(  # type: ignore[attr-defined]
        model.getvalue()
    )
    proto.trainer_spec.ClearField("seed_sentencepieces_file")
    return proto.SerializeToString(deterministic=True)


def _seeds(texts: list[str]) -> str:
    """Pieces to begin with: parts of words, by how often they occur in the texts.

    SentencePiece itself counts each distinct word once, so in a small corpus the most frequent
    words, which are part of no other, would never become pieces.
    """
    counts: Counter[str] = Counter()
    for word, count in Counter(word for text in texts for word in text.split()).items():
        marked = f"\u2581{word}"
        for start in range(len(marked)):
            for end in range(start + 1, min(len(marked), start + _LONGEST_PIECE) + 1):
                counts[marked[start:end]] += count
    ranked = sorted(counts.items(), key=lambda item: (-item[1] * len(item[0]), item[0]))
    kept = [(piece, n) for piece, n in ranked if n > 1 or len(piece) == 1]
    return "".join(f"{piece}\t{n}\n" for piece, n in kept)


class Tokenizer:
    """`tokenizer(texts)` is int32 N x length of any SentencePiece model.

    Each text is lower-cased, encoded, cut to length - 1 pieces, ended with EOS and filled up. The
    text tower reads the last position, which is thus EOS or padding whatever the length ("sticky"
    EOS, as in the paper's code base).

    Arguments:
      lower_case: "ascii" is what the code base does; "unicode" lowers other capitals too.
      sticky_eos: else texts are cut to `length` pieces, so that a long one ends without EOS.
      pad: what fills a text after its EOS: more "eos" (SigLIP), or the model's "pad" (SigLIP 2).

    Attributes:
      vocabulary: see `study.config.vocabulary.Vocabulary`.
      options: what else than the model makes the tokens of a text, as part of a file name; empty
        by default.
      digest: names model and options.

    Raises:
      DataError: a model that is missing or damaged, or has no EOS or no piece to pad with.
    """

    def __init__(
        self,
        model: str | Path,
        length: int,
        *,
        lower_case: LowerCase = "unicode",
        sticky_eos: bool = True,
        pad: Pad = "eos",
    ):
        path = Path(model)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"the tokenizer {path}: {error.strerror or error}; {HINT}") from None
        self.length = length
        self._lower_case, self._kept = lower_case, length - sticky_eos
        self._pieces = sentencepiece.SentencePieceProcessor()
        try:
            if not data:
                raise ValueError("empty file")
            self._pieces.LoadFromSerializedProto(data)
            size, eos = int(self._pieces.vocab_size()), int(self._pieces.eos_id())
        except (RuntimeError, ValueError, OSError):
            raise DataError(f"the tokenizer {path} is no SentencePiece model; {HINT}") from None
        if eos < 0:
            raise DataError(f"the tokenizer {path} has no EOS piece, which the text tower reads")
        fill = eos if pad == "eos" else int(self._pieces.pad_id())
        if fill < 0:
            raise DataError(
                f"the tokenizer {path} has no padding piece; set data.pad='eos', or take the "
                "tokenizer that the checkpoint was trained with"
            )
        self.vocabulary = Vocabulary(size, eos=eos, pad=fill)
        case = {"unicode": "", "ascii": "-ascii", False: "-cased"}[lower_case]
        self.options = case + "-cut" * (not sticky_eos) + "-pad" * (pad == "pad")
        self.digest = hashlib.sha256(data).hexdigest() + self.options

    @classmethod
    def open(cls, dataset: Dataset, data: Data) -> Tokenizer:
        """The tokenizer of a cell's texts: its own, or else that of the data set.

        Raises:
          DataError: it is not in the data set's folder; see also `Tokenizer`.
        """
        model = dataset.folder / data.tokenizer if data.tokenizer else dataset.tokenizer
        return cls(
            model,
            data.text_length,
            lower_case=data.lower_case,
            sticky_eos=data.sticky_eos,
            pad=data.pad,
        )

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        places: dict[str, int] = {}
        known = [_lower(text, self._lower_case) for text in texts]
        index_N = np.fromiter((places.setdefault(text, len(places)) for text in known), np.int64)
        tokens_UxL = np.full((len(places), self.length), self.vocabulary.pad, np.int32)
        for row_L, ids in zip(tokens_UxL, self._pieces.encode(list(places)), strict=True):
            kept = ids[: self._kept]
            row_L[: len(kept)] = kept
            row_L[len(kept) : len(kept) + 1] = self.vocabulary.eos
        return tokens_UxL[index_N]


_ASCII = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def _lower(text: str, case: LowerCase) -> str:
    if case == "ascii":
        return text.translate(_ASCII)
    return text.lower() if case else text
