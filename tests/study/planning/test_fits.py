"""Whether a step fits a slice: what shares a report, what a compiler says, and a real step."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections import Counter

import jax
import pytest

from study.config import (
    Adafactor,
    Budget,
    CachedImage,
    Cell,
    Corruption,
    Data,
    Execution,
    MeanPoolText,
    Model,
    Negatives,
    ParamGroup,
    Sigmoid,
    Softmax,
    TextTransformer,
    ZeroShot,
    replace,
)
from study.config.hardware import GIB
from study.config.model import Vocabulary
from study.models.sharding import bytes_per_device, make_mesh
from study.planning import fits as fit
from study.planning import tpu_compile
from study.planning.fits import (
    FitReport,
    ProgramSpec,
    RunSetting,
    checkpoint_copy_bytes,
    evaluation_of,
)
from study.training.checkpoint import Checkpoints
from study.training.compile import train_program
from study.training.compile_key import memory_key

CELL = Cell(batch_size=64, optimizer=Adafactor(warmup_percent=5), budget=Budget(examples=1_000_000))


def spec(cell: Cell, slice_name: str = "v4-8") -> ProgramSpec:
    return ProgramSpec(
        cell=memory_key(cell, 8192), vocabulary=50, image_shape=(24, 24, 3), slice=slice_name
    )


SAME = {
    "seed": {"seed": 7},
    "budget": {"budget": Budget(examples=9_000_000)},
    "evals": {"evals": (ZeroShot(split="val_font"),)},
    "data": {"data": Data(dataset="lit", corruption=Corruption(image=0.5))},
    "rates": {
        "optimizer": Adafactor(learning_rate=0.1, schedule="linear", image=ParamGroup(lr_mult=2))
    },
    "start of t and b": {"loss": Sigmoid(t_init=1.0, b_init=0.0)},
}  # fmt: skip
OTHER = {
    "batch size": {"batch_size": 128},
    "loss": {"loss": Softmax()},
    "no bias": {"loss": Sigmoid(b_init=None)},
    "pairs": {"loss": Sigmoid(pairs=Negatives(keep="hard", per_positive=4))},
    "text length": {"data": Data(text_length=64)},
    "frozen": {"optimizer": Adafactor(image=ParamGroup(frozen=True))},
    "optimizer": {"optimizer": replace(CELL, "optimizer.clip_norm", None).optimizer},
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_cells_that_compile_to_the_same_arrays_share_an_answer(change):
    other = dataclasses.replace(CELL, **change)
    assert other.id != CELL.id
    assert spec(other).key(RunSetting()) == spec(CELL).key(RunSetting())


@pytest.mark.parametrize("change", OTHER.values(), ids=OTHER)
def test_cells_that_do_not_are_told_apart(change):
    other = dataclasses.replace(CELL, **change)
    assert spec(other).key(RunSetting()) != spec(CELL).key(RunSetting())


def test_slices_settings_and_versions_are_told_apart(monkeypatch):
    keys = {
        spec(CELL, s).key(w)
        for s in ("v4-8", "v5e-8")
        for w in (RunSetting(), RunSetting(remat="nothing_saveable"))
    }
    assert len(keys) == 4
    monkeypatch.setattr(fit, "code_hash", lambda: "another jax")
    assert spec(CELL).key(RunSetting()) not in keys


def test_the_code_hash_covers_every_module_that_a_step_imports(tmp_path, monkeypatch):
    """And neither records nor data, so that an edit there keeps the cache."""
    script = """
import sys
from study.planning import fits, tpu_compile
from study.config import Cell, Execution
from study.training.compile import train_program
from study.models.embed import jit_towers
from study.models.sharding import make_mesh
from study.config.model import Vocabulary
import jax
execution = Execution(microbatch=2, remat="nothing_saveable", fsdp_min_mib=0.01)
vocabulary, mesh = Vocabulary(50, eos=1, pad=1), make_mesh(jax.devices()[:2])
program = train_program(Cell(batch_size=4), execution, vocabulary, (24, 24, 3), mesh)
jax.eval_shape(program.loop, *program.arguments)
print(*(name for name in sys.modules if name.startswith("study.")))
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    rooms = {name.split(".")[1] for name in ran.stdout.split()}
    hashed = {room.removesuffix(".py") for room in fit._ROOMS}
    assert rooms <= hashed and {"losses", "models", "training"} <= rooms
    assert not hashed & {"records", "data", "evals"}


def test_the_code_hash_changes_with_the_code(tmp_path, monkeypatch):
    for room in ("planning", "losses", "data"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "a.py").write_text("")
    (tmp_path / "rng.py").write_text("")
    monkeypatch.setattr(fit, "__file__", str(tmp_path / "planning" / "fits.py"))
    monkeypatch.setattr(fit, "_ROOMS", ("planning", "losses", "rng.py"))
    hashes = [fit.code_hash.__wrapped__()]
    for path in ("data/a.py", "losses/a.py", "rng.py"):
        (tmp_path / path).write_text("x = 1\n")
        hashes.append(fit.code_hash.__wrapped__())
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_cells_with_the_same_towers_share_their_evaluation():
    keys = {
        evaluation_of(spec(dataclasses.replace(CELL, **change)), 2048).key(RunSetting())
        for change in ({}, *SAME.values(), {"batch_size": 128}, {"loss": Softmax()})
    }
    assert len(keys) == 1
    assert not keys & {spec(CELL).key(RunSetting())}
    for other in (
        evaluation_of(spec(CELL), 1024),
        evaluation_of(spec(CELL, "v4-16"), 2048),
        evaluation_of(spec(replace(CELL, "data.text_length", 64)), 2048),
    ):
        assert other.key(RunSetting()) not in keys


def test_an_evaluation_takes_rows_that_can_be_spread_over_the_slice():
    assert evaluation_of(spec(CELL, "v4-16"), 2001).cell.batch_size == 2008


def test_a_run_needs_what_its_largest_part_needs():
    report = FitReport(
        usable_bytes=30 * GIB,
        step_bytes=20 * GIB,
        batch_bytes=GIB,
        state_bytes=10 * GIB,
        copied_bytes=5 * GIB,
        evaluation_bytes=4 * GIB,
    )
    assert list(report.phases.values()) == [20 * GIB, 16 * GIB, 15 * GIB]
    assert report.summary == "takes 20.0 of 30.0 GiB"
    saving = dataclasses.replace(report, copied_bytes=20 * GIB)
    assert (saving.fits, saving.largest_phase) == (False, "saving a checkpoint")
    assert saving.summary == "needs 31.0 of 30.0 GiB for saving a checkpoint"
    evaluating = report.with_evaluation(FitReport(usable_bytes=0, evaluation_bytes=18 * GIB))
    assert evaluating.summary == "takes 29.0 of 30.0 GiB for evaluation"
    broken = report.with_evaluation(FitReport(usable_bytes=0, aborted="x < y"))
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
    cell = replace(AVERAGE, "optimizer.clip_norm", None)
    execution = Execution(fsdp_min_mib=0.01)
    for devices, ways in ((4, execution), (2, Execution()), (1, Execution())):
        mesh = make_mesh(jax.devices()[:devices])
        program = train_program(cell, ways, Vocabulary(50, eos=1, pad=1), (64,), mesh)
        state = program.init_state(cell)
        checkpoints = Checkpoints(tmp_path / str(devices))
        checkpoints.save(1, state)
        checkpoints.close()
        assert max(sliced.values(), default=0) == checkpoint_copy_bytes(state)
        assert (devices == 1) == (checkpoint_copy_bytes(state) == 0)
        assert checkpoint_copy_bytes(state) < bytes_per_device(state) * 0.51
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
AVERAGE = replace(SIGLIT, "model.text", MeanPoolText(width=64))


@pytest.mark.slow
def test_the_step_of_a_cell_compiles_for_a_slice_and_for_two_of_them(compiled_for_tpu):
    """The loop that `train` runs, with parameters cut; the first way that fits ends a search."""
    del compiled_for_tpu  # only to be skipped where libtpu cannot be
    ways = [RunSetting(microbatch=4, fsdp_min_mib=0.001), RunSetting()]
    reports = {}
    for name, cell in {"v4-8": SIGLIT, "v6e-4x2": AVERAGE}.items():
        small = dataclasses.replace(spec(cell, name), image_shape=(64,))
        request = {"spec": small.to_dict(), "settings": [vars(w) for w in ways]}
        lines = list(
            tpu_compile.run_python(["-m", "study.planning.fits"], stdin=json.dumps(request))
        )
        assert [sorted(line) for line in lines] == [["trying"], ["report", "setting"]]
        reports[name] = fit.FitReport(**lines[1]["report"])
    for name, report in reports.items():
        assert report.fits, name
        assert 0 < report.state_bytes < report.needed_bytes < report.usable_bytes / 100
        assert report.largest_phase == "the training step"
    assert reports["v4-8"].summary.endswith("of 30.8 GiB")


@pytest.mark.slow
def test_an_evaluation_compiles_for_a_slice_or_is_refused(compiled_for_tpu):
    """With parameters that are cut as the state's are, and at a size that no chip can hold."""
    del compiled_for_tpu
    small = dataclasses.replace(spec(AVERAGE), image_shape=(64,))
    reports = []
    for rows in (2048, 1 << 24):
        request = {
            "spec": evaluation_of(small, rows).to_dict(),
            "settings": [vars(RunSetting(fsdp_min_mib=0.001))],
        }
        lines = list(
            tpu_compile.run_python(["-m", "study.planning.fits"], stdin=json.dumps(request))
        )
        reports.append(fit.FitReport(**lines[-1]["report"]))
    fine, refused = reports
    assert 2048 // 4 * 64 * 4 < fine.evaluation_bytes < 2**24
    assert fine.fits and not refused.fits
    assert refused.evaluation_bytes > refused.usable_bytes
