"""Keys and tokens never reach records, logs or messages."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from study.cell import Adam, CachedImage, Cell, Execution, Model, TextAverage
from study.durations import Budget
from study.secrets import hide
from sweeps import worker
from sweeps.cli import _explain

KEY = "0123456789abcdef" * 2 + "deadbeef"  # 40 characters, as wandb's are
TOKEN = "hf_plantedplantedplanted"
CELL = Cell(
    model=Model(
        image=CachedImage(embeddings="hog-lda-16", dim=16), text=TextAverage(width=16), embed_dim=16
    ),
    optimizer=Adam(learning_rate=1e-2),
    budget=Budget(examples=256),
    batch_size=32,
)


@pytest.fixture
def planted(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.delenv("WANDB_MODE", raising=False)


def written(folder: Path) -> bytes:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return b"".join(path.read_bytes() for path in files)


def refused(*_, **__):
    raise RuntimeError(f"401 for the key {KEY}, and {TOKEN} is no better")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # wandb's threads warn on their own account
def test_a_trained_cell_and_its_wandb_files_hold_no_key(
    planted, tmp_path, small_glyphs, caplog, capfd
):
    execution = Execution(data_root=str(small_glyphs.parent))
    with caplog.at_level(logging.DEBUG):
        outcome = worker.run_here(
            CELL, execution, folder=tmp_path / CELL.id, study="s", should_stop=lambda: False
        )
    assert outcome.end == "done"
    assert list(tmp_path.rglob("*.wandb"))
    said = capfd.readouterr()
    everything = written(tmp_path) + (caplog.text + said.out + said.err + str(outcome)).encode()
    for secret in (KEY, TOKEN):
        assert secret.encode() not in everything


def test_an_error_that_quotes_a_key_is_noted_without_it(planted, tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "load", lambda _: refused)
    outcome = worker.run_here(
        CELL, Execution(), folder=tmp_path, study="s", should_stop=lambda: False
    )
    assert outcome.end == "failed" and "<WANDB_API_KEY>" in outcome.error
    everything = written(tmp_path) + outcome.error.encode()
    assert b"401 for the key" in everything
    for secret in (KEY, TOKEN):
        assert secret.encode() not in everything


def test_the_command_line_says_no_key_either(planted, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    try:
        refused()
    except RuntimeError as error:
        _explain(error)
    everything = capsys.readouterr().err.encode() + written(tmp_path)
    assert b"<HF_TOKEN>" in everything
    for secret in (KEY, TOKEN):
        assert secret.encode() not in everything


def test_only_what_is_named_like_a_secret_and_long_enough_is_hidden():
    environ = {"MY_TOKEN": "abcdefgh", "LONG_KEY": "abcdefghijkl", "PIN_KEY": "1", "HOME": "/root"}
    assert hide("abcdefghijkl abcdefgh 1 /root", environ) == "<LONG_KEY> <MY_TOKEN> 1 /root"
