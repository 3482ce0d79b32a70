"""Training from a bucket records what training from a folder does."""

import dataclasses
import json
import types

from study.bench import bucket_training
from study.config import Blocks
from study.config.cell import from_dict, to_dict
from study.training.loop import train


def train_here(cell, data_root, record, cache):
    """As `_start`, without a process."""
    values = json.loads(json.dumps(to_dict(cell)))
    train(from_dict(values), bucket_training.execution(data_root), folder=record, group="bench")
    return types.SimpleNamespace(
        communicate=lambda: ("", ""), returncode=0, poll=lambda: 0, kill=int
    )


def test_from_a_bucket_as_from_a_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(bucket_training, "_start", train_here)
    monkeypatch.setattr(bucket_training, "CASES", [(Blocks(size=16, open=4), False)])
    monkeypatch.setenv("STUDY_DATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("STUDY_DATA_CACHE_GB", "0")
    (result,) = bucket_training.bench(
        tmp_path, examples=270, batch_size=64, rounds=1, limit_characters=8
    )
    assert result.examples == 256
    assert result.equal and result.resumed_equal
    assert result.sent > 100 and result.requests > 0
    assert len(result.ratios) == 1

    run = bucket_training._Run(rows=[{"step": 1}], per_s=1.0, wait=0.0, sent=0, requests=0)
    other = dataclasses.replace(run, rows=[{"step": 2}])
    cell = types.SimpleNamespace(examples=1)
    result = bucket_training._summarize("blocks", False, cell, [run], [run], other)
    assert result.equal and not result.resumed_equal
    assert not bucket_training._summarize("global", False, cell, [run], [other], None).equal
