"""The tokenizer: lower case, truncation, and EOS in the last place whatever happens."""

import io

import numpy as np
import pytest
import sentencepiece

from study.config import Data
from study.data.formats.dataset import DataError, Dataset
from study.data.formats.open_split import open_split
from study.data.texts import load_tokens
from study.data.tokenizer import EOS, Tokenizer, train_tokenizer
from tests.study.gemma import code_base_tokens, write_model

TEXTS = ["", "a", "LATIN SMALL LETTER A WITH GRAVE", "漢字", "LATIN " * 40, "  a  b "]


@pytest.mark.parametrize("length", [1, 2, 16])
def test_eos_is_sticky_and_truncation_keeps_it(small, length):
    tokenizer = Tokenizer(small.tokenizer, length)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(small.tokenizer))
    tokens_NxL = tokenizer(TEXTS)
    assert tokens_NxL.shape == (len(TEXTS), length)
    assert tokens_NxL.dtype == np.int32
    assert tokenizer.vocabulary == (pieces.vocab_size(), EOS, EOS)
    for row_L, text in zip(tokens_NxL, TEXTS, strict=True):
        kept = pieces.encode(text.lower())[: length - 1]
        assert row_L.tolist() == kept + [EOS] * (length - len(kept))
        assert row_L[-1] == EOS


def test_case_order_and_other_texts_do_not_matter(small):
    tokenizer = Tokenizer(small.tokenizer, 16)
    texts = [e["text"] for e in open_split(small, "val_font")]
    together_NxL = tokenizer(texts)
    alone_NxL = np.concatenate([tokenizer([text.lower()]) for text in texts])
    np.testing.assert_array_equal(together_NxL, alone_NxL)
    np.testing.assert_array_equal(tokenizer(texts[::-1]), together_NxL[::-1])
    assert tokenizer([]).shape == (0, 16)


def test_frequent_words_are_one_piece_each(small):
    tokenizer = Tokenizer(small.tokenizer, 8)
    for word in ("bold", "oblique", "mono", "serif", "times", "latin", "letter", "small"):
        tokens_L = tokenizer([word])[0]
        assert (tokens_L != EOS).sum() == 1, word


def test_training_is_deterministic_and_notes_no_path():
    texts = ["LATIN SMALL LETTER A", "LATIN CAPITAL LETTER B", "DIGIT ONE"] * 10
    model = train_tokenizer(texts)
    assert train_tokenizer(iter(texts)) == model
    assert b".tsv" not in model


@pytest.mark.parametrize("content", [None, b"", b"no model", b"\x00" * 100])
def test_a_missing_or_damaged_model_is_named(tmp_path, content):
    path = tmp_path / "sentencepiece.model"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"tokenizer .*sentencepiece\.model") as error:
        Tokenizer(path, 16)
    assert "\n" not in str(error.value)


def test_a_model_without_eos_is_refused(tmp_path):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c"] * 9),
        model_writer=model,
        vocab_size=20,
        hard_vocab_limit=False,
        eos_id=-1,
        minloglevel=2,
    )
    (tmp_path / "m").write_bytes(model.getvalue())
    with pytest.raises(DataError, match="no EOS"):
        Tokenizer(tmp_path / "m", 16)


def test_options_change_what_they_name(small):
    lower, cased = (Tokenizer(small.tokenizer, 16, lower_case=x) for x in ("unicode", None))
    np.testing.assert_array_equal(lower(["LATIN"]), cased(["latin"]))
    assert (lower(["LATIN"]) != cased(["LATIN"])).any()
    sticky, cut = (Tokenizer(small.tokenizer, 4, sticky_eos=x) for x in (True, False))
    np.testing.assert_array_equal(sticky(["latin"]), cut(["latin"]))
    long = ["latin small letter a with grave and more"]
    np.testing.assert_array_equal(sticky(long)[:, :3], cut(long)[:, :3])
    assert cut(long)[0, 3] != EOS == sticky(long)[0, 3]
    assert len({t.digest for t in (lower, cased, cut)}) == 3


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("gemma") / "tokenizer.model")


@pytest.mark.parametrize("pad", ["eos", "pad"])
@pytest.mark.parametrize("sticky", [True, False])
@pytest.mark.parametrize("length", [1, 5, 64])
def test_tokens_are_the_code_bases(gemma, length, sticky, pad):
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(gemma))
    tokenizer = Tokenizer(gemma, length, lower_case="ascii", sticky_eos=sticky, pad=pad)
    fill = {"eos": 1, "pad": 0}[pad]
    assert tokenizer.vocabulary == (pieces.vocab_size(), 1, fill)
    texts = ["", "a cow", "A Cow on the BEACH", "München im JULI", "ΓΆΤΑ ΣΤΟ ΣΠΊΤΙ", "cow " * 40]
    want = [code_base_tokens(pieces, text, length, sticky=sticky, fill=fill) for text in texts]
    assert tokenizer(texts).tolist() == want


def test_a_short_text_of_siglip_2_has_one_eos_and_ends_in_padding(gemma):
    """Its text tower reads the last position, which is then padding and not EOS."""
    (row,) = Tokenizer(gemma, 8, pad="pad")(["cow"]).tolist()
    assert row.count(1) == 1 and row[row.index(1) + 1 :] == [0] * (7 - row.index(1)) != []
    (row,) = Tokenizer(gemma, 8)(["cow"]).tolist()
    assert 0 not in row and row[-1] == 1


def test_ascii_lowers_a_to_z_and_unicode_all_capitals(gemma):
    lower = {case: Tokenizer(gemma, 32, lower_case=case) for case in ("ascii", "unicode", None)}
    for text, ascii_alone in (("A COW", True), ("MÜNCHEN", False), ("ΓΆΤΑ", False)):
        rows = {case: tokenizer([text]).tolist() for case, tokenizer in lower.items()}
        assert (rows["ascii"] == rows["unicode"]) == ascii_alone
        assert rows["unicode"] == lower[None]([text.lower()]).tolist()
    assert len({tokenizer.digest for tokenizer in lower.values()}) == 3


def test_a_model_without_padding_is_refused_where_it_is_asked_for(tmp_path):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c"] * 9),
        model_writer=model,
        vocab_size=20,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (tmp_path / "m").write_bytes(model.getvalue())
    assert Tokenizer(tmp_path / "m", 16).vocabulary.pad == 2  # EOS of this model
    with pytest.raises(DataError, match=r"no padding piece; set data.pad='eos'"):
        Tokenizer(tmp_path / "m", 16, pad="pad")


def test_tokens_of_other_options_are_kept_apart(copy):
    dataset = Dataset.open(copy)
    made = [load_tokens(dataset, "val_font", Data(pad=pad)) for pad in ("eos", "pad")]
    assert (made[0] != made[1]).any()
    np.testing.assert_array_equal(load_tokens(dataset, "val_font", Data()), made[0])


def test_a_cell_may_bring_its_own_model(copy):
    dataset = Dataset.open(copy)
    (copy / "other.model").write_bytes(train_tokenizer(["other words entirely"] * 9))
    own, other = Data(), Data(tokenizer="other.model")
    expected = Tokenizer(copy / "other.model", 16)(["latin small"])
    np.testing.assert_array_equal(Tokenizer.open(dataset, other)(["latin small"]), expected)
    assert (load_tokens(dataset, "val_font", own) != load_tokens(dataset, "val_font", other)).any()
    with pytest.raises(DataError, match=r"none\.model"):
        Tokenizer.open(dataset, Data(tokenizer="none.model"))
