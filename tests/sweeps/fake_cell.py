"""A cell that trains nothing but leaves the same files, slowly, and can be told to misbehave.

Imported by Ray workers, so it is found through PYTHONPATH. What a cell does is told by files in
the folder FAKE_CELL (an environment variable): `<seed>.raise` counts down the tries that raise,
`<seed>.crash` the tries in which the process kills itself half-way.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from study.config import Cell, CellError, to_dict
from study.records.record import Progress, Record, RecordError, atomic_write
from study.records.storage import read
from sweeps.runner import attempts

attempts.BACKOFF_S = 0.05  # of the workers that import this
SECONDS_PER_STEP = float(os.environ.get("FAKE_CELL_SECONDS", "0.05"))


class Stopped(Exception):
    pass


def _counts_down(seed: int, what: str) -> bool:
    path = Path(os.environ.get("FAKE_CELL", "/nonexistent")) / f"{seed}.{what}"
    if not path.exists():
        return False
    left = int(path.read_text()) - 1
    path.write_text(str(left)) if left else path.unlink()
    return True


def _among_processes():
    """Whether this process writes, and how all of them agree on when to stop."""
    if "jax" not in sys.modules:  # a local cell: importing it takes longer than the cell
        return True, lambda should_stop: should_stop()
    import jax

    from study.training.multihost import any_process

    return jax.process_index() == 0, lambda should_stop: any_process(should_stop())[0]


def train(cell: Cell, execution, *, folder: Path, group: str, run_name=None, should_stop) -> dict:
    del execution
    record = Record(folder)
    if record.done:
        return record.done
    saved = folder / "saved.json"
    try:
        step, value = json.loads(read(saved))
    except FileNotFoundError:
        step, value = 0, cell.seed
    about = {"id": cell.id, "hash": cell.hash, "group": group, "cell": to_dict(cell)}

    primary, agreed = _among_processes()

    def seen() -> Progress:
        return Progress(step, step * cell.batch_size, step * cell.pairs_per_step)

    if primary:
        slice_name = os.environ.get("TPU_NAME")
        threads = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "NPROC")}
        record.begin(about, seen=seen(), pid=os.getpid(), slice=slice_name, **threads)
    if _counts_down(cell.seed, "raise"):
        raise ZeroDivisionError("told to\nraise")
    if _counts_down(cell.seed, "bad"):
        raise CellError("batch_size: bad as told")
    if _counts_down(cell.seed, "full"):
        raise RecordError("cannot write there") from OSError(28, "No space left on device")
    crash_at = cell.steps // 2 if _counts_down(cell.seed, "crash") else -1
    while step < cell.steps:
        time.sleep(SECONDS_PER_STEP)
        step += 1
        value = (value * 1103515245 + 12345 + step) % 2**31  # stands for weights: order matters
        if primary:
            record.row(seen(), **{"train/loss": value / 2**31})
        stop = agreed(should_stop)
        if primary and (stop or step % 5 == 0):
            record.flush()
            with atomic_write(saved) as file:
                file.write(json.dumps([step, value]).encode())
        if stop:
            raise Stopped
        if step == crash_at:
            os.kill(os.getpid(), signal.SIGKILL)
    if not primary:
        return {"status": "done"}
    return record.finish(
        seen(),
        status="diverged" if cell.seed == 666 else "done",
        summary={"train/loss": value / 2**31, "eval/zero_shot/val_font/top1": 12.5},
        seconds={"total": step * SECONDS_PER_STEP, "train": step * SECONDS_PER_STEP},
    )
