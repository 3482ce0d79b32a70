"""A data set opens if it is complete; else one line names the problem."""

import pytest

from study.data.formats.dataset import DATASET_FILE, DataError, Dataset


def one_line(error) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError) as error:
        Dataset.open(tmp_path / "none")
    assert str(tmp_path / "none") in one_line(error)


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"splits": 3}'])
def test_an_unfinished_folder_is_refused(copy, content):
    if content is None:
        (copy / DATASET_FILE).unlink()
    else:
        (copy / DATASET_FILE).write_text(content)
    with pytest.raises(DataError) as error:
        Dataset.open(copy)
    assert str(copy) in one_line(error)


@pytest.mark.parametrize("name", ["train-00001.tar", "sentencepiece.model", "classnames.txt"])
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(DataError) as error:
        Dataset.open(copy)
    assert name in one_line(error)


@pytest.mark.parametrize("name", ["classnames.txt", "templates.txt"])
def test_a_file_that_is_not_text_is_named(copy, name):
    (copy / name).write_bytes(b"\xff\xfe\x00A")
    with pytest.raises(DataError) as error:
        Dataset.open(copy)
    assert name in one_line(error)


def test_an_unknown_split_lists_those_that_exist(small):
    with pytest.raises(DataError) as error:
        small.split("validation")
    assert "train, val_font, test_font, test_chars" in one_line(error)


def test_verify_finds_a_single_flipped_bit_anywhere(copy):
    Dataset.open(copy).verify()
    shard = copy / "val_font-00000.tar"
    data = bytearray(shard.read_bytes())
    data[-2000] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DataError, match=r"val_font-00000\.tar"):
        Dataset.open(copy).verify()
