"""The page of `study bench data` shows what was measured, and what could not be."""

import json

from study.bench.data import Result
from sweeps.bench.data_page import HEAD, render, rows, write

OURS = Result(
    case="images",
    place="bucket",
    name="ours_blocks",
    per_s=1234.5,
    rates=(1200.0, 1269.0),
    cpu_s=1.5,
    cpus=(1.4, 1.6),
    ratio=1.0,
    ratios=(1.0, 1.0),
    cpu_ratio=1.0,
    cpu_ratios=(1.0, 1.0),
    processes=1,
    pss=300 * 2**20,
    sent=57_000.0,
    requests=0.0321,
    with_neighbour=0.86,
    shards=28.6,
)
LOOP = Result(case="images", place="bucket", name="loop", not_available="tarfile reads files")

OPTIONS = {
    "images": 4096,
    "embeddings": 32_768,
    "image_size": 224,
    "batch_size": 128,
    "row_batch_size": 1024,
    "workers": 2,
    "seconds": 1.5,
    "rounds": 3,
}


def test_a_page_is_made_from_the_recorded_results(tmp_path):
    recorded, page = write([OURS, LOOP], tmp_path, OPTIONS)
    about = json.loads(recorded.read_text())
    assert Result(**about["results"][1]).not_available == LOOP.not_available
    assert page.read_text() == render(about)
    row = (
        "| images | bucket | Ours, blocks order | 1,234 | 1.5 | 1 | 1 | 1 | 300 | 57,000 | 32.1 | "
        "86% | 28.6 |"
    )
    assert row in page.read_text()
    assert f"commit {about['commit']}, {about['machine']}" in page.read_text()


def test_every_row_has_all_columns():
    assert {len(row) for row in rows([OURS, LOOP])} == {len(HEAD)}
    assert "not available: tarfile reads files" in rows([LOOP])[0]
