"""What a host reads is planned by the loader itself, and measured from a disk and a bucket."""

import pytest

from study.bench import rows as bench_rows
from study.bench.rows import measure, plan_traffic
from study.config.data import Blocks, Global

EXAMPLE = 2 * 1408 + 2 * 16
SET = {"examples": 1_000_000, "shard": 1000, "dim": 1408}


def test_a_host_reads_what_its_rows_of_the_windows_take():
    alone = plan_traffic(Global(), batch_size=64, hosts=4, **SET)
    assert (alone.requests, alone.bytes) == (2, EXAMPLE)
    blocks = Blocks(size=250, open=4)
    whole = plan_traffic(blocks, batch_size=4000, hosts=4, **SET)
    assert whole.bytes == EXAMPLE and whole.requests == pytest.approx(2 / 250, rel=0.05)
    shared = plan_traffic(blocks, batch_size=2000, hosts=4, **SET)
    assert shared.bytes == pytest.approx(2 * EXAMPLE, rel=0.05)


@pytest.fixture
def few(monkeypatch):
    for name, value in {"_ROWS": 512, "_SHARD": 128, "_BATCH": 64, "_REQUESTS": 8}.items():
        monkeypatch.setattr(bench_rows, name, value)


def test_it_reads_rows_from_a_disk_and_from_a_bucket(few, tmp_path, gcs):
    bucket = gcs.bucket()
    rates = measure(tmp_path, f"gs://{bucket}/scratch")
    assert min(rates.disk, rates.request, rates.bucket) > 0 <= rates.byte
    # One window, which is the set: each file is one run.
    assert rates.bucket_requests == 2 * 4 / 512
    assert rates.bucket_bytes == pytest.approx(EXAMPLE, rel=0.01)
    assert gcs.counts(bucket)["read"] == 4 * (2 + 8) + 4 * 8  # indexes and runs; requests
