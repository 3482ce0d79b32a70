"""`study data` on a folder of tars that somebody else wrote."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from study.data.embeddings import CachedEmbeddings
from study.data.formats.webdataset import write_shard


@pytest.fixture
def tars(tmp_path) -> Path:
    folder = tmp_path / "tars"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for shard in range(2):
        rows = []
        for i in range(6):
            out = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (24, 24), dtype=np.uint8)).save(out, "PNG")
            about = b'{"class": %d}' % (i % 2)
            members = {"png": out.getvalue(), "txt": b"picture %d" % (i % 2), "json": about}
            if (shard, i) == (1, 3):
                del members["png"]
            rows.append((f"{shard}{i}", members))
        write_shard(folder / f"{shard:05d}.tar", rows)
    (folder / "classnames.txt").write_text("one\ntwo\n")
    return folder


def test_index_inspect_embed_and_verify(study, tars):
    code, out, _ = study("data", "index", "tars", "--train-tokenizer", "40", "--hash")
    assert code == 0
    assert "1 examples lack an image or text" in out
    assert "tars: 12 train in 2 shards; fingerprint " in out

    code, out, _ = study("data", "inspect", "tars", "--out", "page.png", "--rows", "2")
    assert code == 0
    assert out.splitlines()[-1] == "page.png"
    with Image.open("page.png") as page:
        assert page.width > 600

    embed = ("data", "embed", "tars", "--out", "z", "--dim", "2", "--workers", "1")
    code, out, _ = study(*embed, "--shard", "2/2")
    assert (code, out) == (0, "tars/embeddings/z: part 2/2 is done; others are missing\n")
    code, _, err = study(*embed)
    assert (code, err.count("\n")) == (2, 1)
    assert "1 of the 12 images of train cannot be used" in err
    assert study(*embed, "--max-bad-share", "0.1")[:2] == (0, "tars/embeddings/z\n")
    code, out, _ = study("data", "tokenize", "tars", "--length", "9", "--lower-case", "none")
    assert (code, out.startswith("tars/tokens/9-cased-")) == (0, True)
    assert study("data", "verify", "tars")[0] == 0

    from study.data.formats.dataset import Dataset

    assert len(CachedEmbeddings.open(Dataset.open("tars"), "z", "train")) == 12
    with Path("tars/embeddings/z/train-00001.npy").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"?")
    code, out, err = study("data", "verify", "tars")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "train-00001.npy has changed since it was written" in err


def test_a_wrong_shard_or_resize_is_one_line(study, tars):
    assert study("data", "index", "tars", "--train-tokenizer", "40")[0] == 0
    for option, values, words in (
        ("--shard", ("0/2", "3/2", "2", "a/b"), ("write K/N",)),
        ("--resize", ("bilinear",), ("needs the --checkpoint",)),  # the descriptor has its own
        ("--resize", ("nearest",), ("bicubic", "bilinear")),
    ):
        for value in values:
            code, _, err = study("data", "embed", "tars", "--out", "z", option, value)
            assert (code, err.count("\n")) == (2, 1)
            assert option in err and all(word in err for word in words)
