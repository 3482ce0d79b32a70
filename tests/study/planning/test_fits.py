"""Whether a step fits a slice: what shares an answer, what a compiler says, and a real step."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections import Counter

import jax
import pytest

import study.planning.code_hash
from study.config.budget import Budget
from study.config.cell import (
    Adafactor,
    CachedImage,
    Cell,
    Corruption,
    Data,
    Execution,
    Model,
    Part,
    Sigmoid,
    Softmax,
    TextAverage,
    TextTransformer,
    ZeroShot,
    replace,
)
from study.config.hardware import GIB
from study.config.pairs import Negatives
from study.config.vocabulary import Vocabulary
from study.models.sharding import bytes_per_device, make_mesh
from study.planning import fits as fit
from study.planning import tpu_compile
from study.planning.code_hash import sources
from study.planning.fits import (
    FitReport,
    ProgramSpec,
    RunSetting,
    canonical,
    copied_bytes,
    evaluation_of,
)
from study.training.checkpoint import Checkpoints
from study.training.compile import initial

CELL = Cell(batch_size=64, optimizer=Adafactor(warmup_percent=5), budget=Budget(examples=1_000_000))


def shape(cell: Cell, slice_name: str = "v4-8") -> ProgramSpec:
    return ProgramSpec(
        cell=canonical(cell, 8192), vocabulary=50, image_shape=(24, 24, 3), slice=slice_name
    )


SAME = {
    "seed": {"seed": 7},
    "budget": {"budget": Budget(examples=9_000_000)},
    "evals": {"evals": (ZeroShot(split="val_font"),)},
    "data": {"data": Data(dataset="lit", corrupt=Corruption(image=0.5))},
    "rates": {
        "optimizer": Adafactor(learning_rate=0.1, schedule="linear", image=Part(rate_times=2))
    },
    "start of t and b": {"loss": Sigmoid(t_init=1.0, b_init=0.0)},
}  # fmt: skip
OTHER = {
    "batch size": {"batch_size": 128},
    "loss": {"loss": Softmax()},
    "no bias": {"loss": Sigmoid(b_init=None)},
    "pairs": {"loss": Sigmoid(pairs=Negatives(keep="hard", per_positive=4))},
    "text length": {"data": Data(text_length=64)},
    "frozen": {"optimizer": Adafactor(image=Part(frozen=True))},
    "optimizer": {"optimizer": replace(CELL, "optimizer.clip_norm", None).optimizer},
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_cells_that_compile_to_the_same_arrays_share_an_answer(change):
    other = dataclasses.replace(CELL, **change)
    assert other.id != CELL.id
    assert shape(other).key(RunSetting()) == shape(CELL).key(RunSetting())


@pytest.mark.parametrize("change", OTHER.values(), ids=OTHER)
def test_cells_that_do_not_are_told_apart(change):
    other = dataclasses.replace(CELL, **change)
    assert shape(other).key(RunSetting()) != shape(CELL).key(RunSetting())


def test_slices_settings_and_versions_are_told_apart(monkeypatch):
    keys = {
        shape(CELL, s).key(w)
        for s in ("v4-8", "v5e-8")
        for w in (RunSetting(), RunSetting(remat=True))
    }
    assert len(keys) == 4
    monkeypatch.setattr(fit, "made_by", lambda: "another jax")
    assert shape(CELL).key(RunSetting()) not in keys


def test_an_answer_is_hashed_with_every_module_that_a_step_is_made_by_and_no_other():
    """A process that makes a step imports nothing of ours that is not hashed."""
    script = """
import sys
from study.planning import fits, tpu_compile
from study.config.cell import Cell, Execution
from study.training.compile import program
from study.models.sharding import make_mesh
from study.config.vocabulary import Vocabulary
import jax
execution = Execution(microbatch=2, remat=True, fsdp_mib=0.01)
vocabulary, mesh = Vocabulary(50, eos=1, pad=1), make_mesh(jax.devices()[:2])
made = program(Cell(batch_size=4), execution, vocabulary, (24, 24, 3), mesh)
jax.eval_shape(made.loop, *made.arguments)
print(*(name for name in sys.modules if name.partition(".")[0] == "study"))
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    imported, hashed = set(ran.stdout.split()), set(sources("study.planning.fits"))
    assert imported <= hashed
    assert {"study.training.compile", "study.training.step", "study.losses.ring"} <= imported
    assert not hashed & {
        "study.training.loop",
        "study.records.metrics_log",
        "study.records.record",
        "study.data",
    }


def test_comments_and_docstrings_leave_an_answer_as_it_was(tmp_path, monkeypatch):
    package = tmp_path / "study"
    for room in ("planning", "records"):
        (package / room).mkdir(parents=True)
    monkeypatch.setattr(study.planning.code_hash, "_ROOT", tmp_path)

    def hashed(text: str) -> dict[str, str]:
        (package / "planning" / "fits.py").write_text(text)
        return sources("study.planning.fits")

    before = hashed('"""A."""\ndef f():\n    """B."""\n    import study.records.metrics_log\n')
    assert hashed("def f():\n    # B\n    import study.records.metrics_log\n") == before
    assert hashed("def f():\n    import study.config.cell\n") != before
    (package / "records" / "metrics_log.py").write_text("")
    assert list(hashed("import study.records.metrics_log")) == [
        "study.planning.fits",
        "study.records.metrics_log",
    ]


def test_a_setting_is_part_of_an_execution():
    way = RunSetting(microbatch=8, remat=True, fsdp_mib=1.0)
    run = way.of(Execution(slice="v4-8", eval_batch_size=7))
    assert (run.microbatch, run.remat, run.fsdp_mib) == (8, True, 1.0)
    assert (run.slice, run.eval_batch_size) == ("v4-8", 7)


def test_cells_with_the_same_towers_share_their_evaluation():
    keys = {
        evaluation_of(shape(dataclasses.replace(CELL, **change)), 2048).key(RunSetting())
        for change in ({}, *SAME.values(), {"batch_size": 128}, {"loss": Softmax()})
    }
    assert len(keys) == 1
    assert not keys & {shape(CELL).key(RunSetting())}
    for other in (
        evaluation_of(shape(CELL), 1024),
        evaluation_of(shape(CELL, "v4-16"), 2048),
        evaluation_of(shape(replace(CELL, "data.text_length", 64)), 2048),
    ):
        assert other.key(RunSetting()) not in keys


def test_an_evaluation_takes_rows_that_can_be_spread_over_the_slice():
    assert evaluation_of(shape(CELL, "v4-16"), 2001).cell.batch_size == 2008


def test_a_run_needs_what_its_largest_part_needs():
    answer = FitReport(
        usable_bytes=30 * GIB,
        step_bytes=20 * GIB,
        batch_bytes=GIB,
        state_bytes=10 * GIB,
        copied_bytes=5 * GIB,
        evaluation_bytes=4 * GIB,
    )
    assert list(answer.parts.values()) == [20 * GIB, 16 * GIB, 15 * GIB]
    assert answer.summary == "takes 20.0 of 30.0 GiB"
    saving = dataclasses.replace(answer, copied_bytes=20 * GIB)
    assert (saving.fits, saving.largest_part) == (False, "saving a checkpoint")
    assert saving.summary == "needs 31.0 of 30.0 GiB for saving a checkpoint"
    evaluating = answer.with_evaluation(FitReport(usable_bytes=0, evaluation_bytes=18 * GIB))
    assert evaluating.summary == "takes 29.0 of 30.0 GiB for evaluation"
    broken = answer.with_evaluation(FitReport(usable_bytes=0, aborted="x < y"))
    assert not broken.fits


def test_what_is_copied_to_be_saved_is_what_orbax_slices_on_the_devices(tmp_path, monkeypatch):
    """Of a state that is partly cut and partly whole, and of one that is on one device alone."""
    sliced: Counter = Counter()
    slice_in_dim = jax.lax.slice_in_dim

    def counted(*args, **kwargs):
        part = slice_in_dim(*args, **kwargs)
        (device,) = part.devices()
        sliced[device] += part.nbytes
        return part

    monkeypatch.setattr(jax.lax, "slice_in_dim", counted)
    cell = replace(CELL, "optimizer.clip_norm", None)
    execution = Execution(fsdp_mib=0.01)
    for devices, ways in ((4, execution), (2, Execution()), (1, Execution())):
        mesh = make_mesh(jax.devices()[:devices])
        state = initial(cell, ways, Vocabulary(50, eos=1, pad=1), (24, 24, 3), mesh)
        checkpoints = Checkpoints(tmp_path / str(devices))
        checkpoints.save(1, state)
        checkpoints.close()
        assert max(sliced.values(), default=0) == copied_bytes(state)
        assert (devices == 1) == (copied_bytes(state) == 0)
        assert copied_bytes(state) < bytes_per_device(state) * 0.51
        sliced.clear()


# Small, for a compiler takes longer over blocks than over all that the property speaks of.
SIGLIT = dataclasses.replace(
    CELL,
    model=Model(
        image=CachedImage(embeddings="e", dim=64),
        text=TextTransformer(depth=1),
        embed_dim=64,
    ),
)
AVERAGE = replace(SIGLIT, "model.text", TextAverage(width=64))


@pytest.mark.slow
def test_the_step_of_a_cell_compiles_for_a_slice_and_for_two_of_them(compiled_for_tpu):
    """The loop that `train` runs, with parameters cut; the first way that fits ends a search."""
    del compiled_for_tpu  # only to be skipped where libtpu cannot be
    ways = [RunSetting(microbatch=4, fsdp_mib=0.001), RunSetting()]
    answers = {}
    for name, cell in {"v4-8": SIGLIT, "v6e-4x2": AVERAGE}.items():
        small = dataclasses.replace(shape(cell, name), image_shape=(64,))
        request = {"shape": small.to_dict(), "settings": [vars(w) for w in ways]}
        said = list(
            tpu_compile.run_python(["-m", "study.planning.fits"], stdin=json.dumps(request))
        )
        assert [sorted(line) for line in said] == [["trying"], ["answer", "setting"]]
        answers[name] = fit.FitReport(**said[1]["answer"])
    for name, answer in answers.items():
        assert answer.fits, name
        assert 0 < answer.state_bytes < answer.needed_bytes < answer.usable_bytes / 100
        assert answer.largest_part == "the training step"
    assert answers["v4-8"].summary.endswith("of 30.8 GiB")


@pytest.mark.slow
def test_an_evaluation_compiles_for_a_slice_or_is_refused(compiled_for_tpu):
    """With parameters that are cut as the state's are, and at a size that no chip can hold."""
    del compiled_for_tpu
    small = dataclasses.replace(shape(AVERAGE), image_shape=(64,))
    answers = []
    for rows in (2048, 1 << 24):
        request = {
            "shape": evaluation_of(small, rows).to_dict(),
            "settings": [vars(RunSetting(fsdp_mib=0.001))],
        }
        lines = list(
            tpu_compile.run_python(["-m", "study.planning.fits"], stdin=json.dumps(request))
        )
        answers.append(fit.FitReport(**lines[-1]["answer"]))
    fine, refused = answers
    assert 2048 // 4 * 64 * 4 < fine.evaluation_bytes < 2**24
    assert fine.fits and not refused.fits
    assert refused.evaluation_bytes > refused.usable_bytes
