"""SentencePiece tokenization as in the paper's code base: lower case, "sticky" EOS."""

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

from study.config import Data
from study.config.data import LowerCase, Pad
from study.config.model import Vocabulary
from study.data.files import join, read_bytes, to_path
from study.data.formats.dataset import HINT, DataError, Dataset

PAD, EOS, UNKNOWN = 0, 1, 2  # the ids of the paper's C4 tokenizer
_LONGEST_PIECE = 16


def train_tokenizer(
    texts: Iterable[str], *, vocabulary: int = 2000, coverage: float = 1.0
) -> bytes:
    """Trains a unigram model on lower-cased texts; the same texts give the same bytes.

    A small corpus can yield fewer pieces than `vocabulary`.

    Arguments:
      coverage: share of the characters, counted by their frequency, that are pieces; the rarest
        ones are unknown.

    Returns:
      The serialized SentencePiece model.
    """
    lower = [text.lower() for text in texts]
    model = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        seeds = Path(folder) / "seeds.tsv"
        seeds.write_text(_seed_pieces(lower), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lower),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocabulary,
            hard_vocab_limit=False,
            character_coverage=coverage,
            split_digits=True,
            seed_sentencepieces_file=str(seeds),
            pad_id=PAD,
            eos_id=EOS,
            unk_id=UNKNOWN,
            bos_id=-1,
            num_threads=1,  # the result depends on the order of sums
            minloglevel=2,
        )
    # The model records its training options, which include the name of our temporary file.
    proto = sentencepiece_model_pb2.ModelProto.FromString(  # type: ignore[attr-defined]
        model.getvalue()
    )
    proto.trainer_spec.ClearField("seed_sentencepieces_file")
    return proto.SerializeToString(deterministic=True)


def _seed_pieces(texts: list[str]) -> str:
    """Initial pieces for the training: substrings of words, by their frequency in the texts.

    SentencePiece counts each distinct word once. In a small corpus the most frequent words, which
    are not part of other words, would then never become pieces.
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
    """A SentencePiece model as a function of texts: `tokenizer(texts)` is int32 N x length.

    Each text is lower-cased, encoded, truncated to length - 1 pieces, ended with EOS and padded. So
    the last position, which the text tower reads, is EOS or padding whatever the length ("sticky"
    EOS, as in the paper's code base).

    Arguments:
      model: the file of the SentencePiece model.
      length: tokens per text.
      lower_case: "ascii" lowers A to Z, as the code base does; "unicode" all capitals.
      sticky_eos: if False, texts are truncated to `length` pieces and a long one has no EOS.
      pad: what follows the EOS: more "eos" (SigLIP), or the model's own "pad" (SigLIP 2).

    Attributes:
      vocabulary: see `study.config.model.Vocabulary`.
      options: the other arguments as part of a file name; empty for the defaults.
      digest: identifies model and options.

    Raises:
      DataError: a model that is missing, damaged, or without an EOS or padding piece.
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
        path = to_path(model)
        try:
            data = read_bytes(path)
        except DataError as error:
            raise DataError(f"the tokenizer {error}") from None
        self.length = length
        self._lower_case, self._max_pieces = lower_case, length - sticky_eos
        self._pieces = sentencepiece.SentencePieceProcessor()
        try:
            if not data:
                raise ValueError("empty file")
            self._pieces.LoadFromSerializedProto(data)
            size, eos = int(self._pieces.vocab_size()), int(self._pieces.eos_id())
        except (RuntimeError, ValueError, OSError):
            raise DataError(f"the tokenizer {path} is not a SentencePiece model; {HINT}") from None
        if eos < 0:
            raise DataError(
                f"the tokenizer {path} has no EOS piece, which the text tower needs; choose another"
            )
        fill = eos if pad == "eos" else int(self._pieces.pad_id())
        if fill < 0:
            raise DataError(
                f"the tokenizer {path} has no padding piece; set data.pad='eos', or use the "
                "tokenizer of the checkpoint"
            )
        self.vocabulary = Vocabulary(size, eos=eos, pad=fill)
        case = {"unicode": "", "ascii": "-ascii", None: "-cased"}[lower_case]
        self.options = case + "-cut" * (not sticky_eos) + "-pad" * (pad == "pad")
        self.digest = hashlib.sha256(data).hexdigest() + self.options

    @classmethod
    def open(cls, dataset: Dataset, data: Data) -> Tokenizer:
        """Opens the tokenizer that a cell names, or else the data set's own.

        Raises:
          DataError: see `Tokenizer`.
        """
        model = join(dataset.folder, data.tokenizer) if data.tokenizer else dataset.tokenizer
        return cls(
            model,
            data.text_length,
            lower_case=data.lower_case,
            sticky_eos=data.sticky_eos,
            pad=data.pad,
        )

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        # Each distinct text is encoded once: captions and prompts repeat.
        row_of: dict[str, int] = {}
        lower = [_lower(text, self._lower_case) for text in texts]
        row_N = np.fromiter((row_of.setdefault(text, len(row_of)) for text in lower), np.int64)
        tokens_UxL = np.full((len(row_of), self.length), self.vocabulary.pad, np.int32)
        for tokens_L, ids in zip(tokens_UxL, self._pieces.encode(list(row_of)), strict=True):
            ids = ids[: self._max_pieces]
            tokens_L[: len(ids)] = ids
            tokens_L[len(ids) : len(ids) + 1] = self.vocabulary.eos
        return tokens_UxL[row_N]


_ASCII = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def _lower(text: str, case: LowerCase) -> str:
    if case == "ascii":
        return text.translate(_ASCII)
    return text.lower() if case else text
