"""A tokenizer like Gemma's, and what the paper's code base makes of a text with it."""

from __future__ import annotations

import io
from pathlib import Path

import sentencepiece

CAPTIONS = ("a photo of a cow on the beach", "münchen im juli", "γάτα στο σπίτι", "x y z 0 1 2 3")


def write_model(path: Path) -> Path:
    """A small model with the special pieces and options of Gemma's: pad 0, eos 1, bos 2, unk 3."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CAPTIONS * 20),
        model_writer=model,
        model_type="bpe",
        vocab_size=400,
        hard_vocab_limit=False,
        byte_fallback=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        minloglevel=2,
    )
    path.write_bytes(model.getvalue())
    return path


def code_base_tokens(pieces, text, length, *, sticky, fill):
    """What the code base does to one text, from its own description (pp/ops_text.py).

    EOS ends the pieces. Too many are cut, but for a sticky EOS; too few are filled up. SigLIP is
    sticky and filled with 1, which is EOS; SigLIP 2 (`tok(..., eos="sticky")`) is sticky and filled
    with the tokenizer's padding. Bytes other than A to Z are not lowered (`tf.strings.lower`).
    """
    small = bytes(byte + 32 if 65 <= byte <= 90 else byte for byte in text.encode()).decode()
    ids = [*pieces.encode(small), pieces.eos_id()]
    if len(ids) >= length:
        return ids[: length - 1] + ids[-1:] if sticky else ids[:length]
    return ids + [fill] * (length - len(ids))
