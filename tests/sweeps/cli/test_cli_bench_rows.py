"""The page of `study bench rows` is of the plan of a study and of measured numbers."""

from study.bench import rows as bench_rows
from study.bench.rows import Rates


def test_the_page_is_of_the_plan_of_the_study(study, monkeypatch):
    rates = Rates(disk=1e-6, request=1e-3, bucket=1e-5, bucket_requests=0.01,
                  bucket_bytes=3000)  # fmt: skip
    monkeypatch.setattr(bench_rows, "measure", lambda folder, bucket: rates)
    code, out, _ = study("bench", "rows", "--bucket", "gs://none/x", "--slice", "v4-32",
                         "--examples", "10000000")  # fmt: skip
    assert code == 0
    lines = [line for line in out.splitlines() if line.startswith("| v4-32 | 4 | 32,768 |")]
    assert [line.split(" | ")[3] for line in lines] == [
        "global", "blocks, 64 open", "blocks, 32 open",
    ]  # fmt: skip
    assert "0.0 TB" in out and "by the paper's days" in out
