"""The cheapest way that fits: the order of trying, what is kept, and what ends a search."""

from __future__ import annotations

import json
import signal

import pytest

from study import aot
from study.cell import Cell, CellError, Model, TextTransformer, ViT
from study.durations import Budget
from study.fit import Answer, Setting, Shape, canonical
from study.hardware import slice_of
from sweeps import search
from sweeps.search import Found, settings

USABLE = slice_of("v4-8").chip.usable_bytes
SIGLIP = Model(
    image=ViT(variant="B/16", image_size=224),
    text=TextTransformer(variant="B"),
    embed_dim=768,
    dtype="bfloat16",
)


def shape(batch_size: int = 16384, slice_name: str = "v4-8") -> Shape:
    cell = Cell(model=SIGLIP, batch_size=batch_size, budget=Budget(steps=100))
    return Shape(
        cell=canonical(cell, 8192),
        vocabulary=32_000,
        image_shape=(224, 224, 3),
        slice=slice_name,
    )


def fits(way: Setting) -> bool:
    return way.microbatch is not None and way.microbatch <= 8


class Compiler:
    """Knows what fits, and what it was asked."""

    def __init__(self, fits=fits):
        self.asked: list[Setting] = []
        self._fits = fits

    def __call__(self, shape, ways):
        for way in ways:
            self.asked.append(way)
            fine = self._fits(way)
            yield way, Answer(fits=fine, needed_bytes=USABLE + (not fine), usable_bytes=USABLE)
            if fine:
                return


def find(compiler, cache, ways=None, **more) -> Found:
    made = shape(**more)
    return search.search(made, ways or settings(made), cache=cache, compile_with=compiler)


def cost(way: Setting) -> tuple[bool, float, float]:
    again = (way.microbatch is not None) + 0.8 * way.remat
    return way.fsdp_mib is not None, again, -(way.microbatch or 1 << 30)


@pytest.mark.parametrize("batch_size", [256, 4096, 65536])
def test_ways_are_tried_from_the_cheapest_and_end_with_the_smallest(batch_size):
    ways = settings(shape(batch_size))
    assert ways[:-1] == sorted(ways[:-1], key=cost)
    assert ways[-1] == Setting(microbatch=1, remat=True, fsdp_mib=search.FSDP_MIB)
    assert len(set(ways)) == len(ways)


def test_a_small_batch_is_first_tried_whole():
    assert settings(shape(64))[0] == Setting()


def test_what_the_user_asks_for_is_tried_first():
    asked = Setting(microbatch=3)
    assert settings(shape(), asked)[0] == asked


def test_the_first_that_fits_ends_the_search(tmp_path):
    compiler = Compiler()
    found = find(compiler, tmp_path)
    assert found.answer.fits
    assert fits(found.setting)
    assert compiler.asked[-1] == found.setting
    assert not any(fits(way) for way in compiler.asked[:-1])


def test_answers_are_kept_so_that_nothing_is_compiled_twice(tmp_path):
    first = find(Compiler(), tmp_path)
    again = Compiler()
    assert find(again, tmp_path) == first
    assert again.asked == []


def test_a_torn_answer_is_made_again(tmp_path):
    first = find(Compiler(), tmp_path)
    for kept in tmp_path.glob("*.json"):
        kept.write_text(kept.read_text()[:20])
    again = Compiler()
    assert find(again, tmp_path) == first
    assert again.asked


@pytest.mark.parametrize("batch_size", [64, 16384, 1 << 26])
def test_nothing_is_said_not_to_fit_before_the_smallest_way_is_compiled(tmp_path, batch_size):
    """Not even where the formula puts every way at many times the memory there is."""
    compiler = Compiler(lambda way: False)
    found = find(compiler, tmp_path, batch_size=batch_size)
    assert not found.answer.fits
    smallest = Setting(microbatch=1, remat=True, fsdp_mib=search.FSDP_MIB)
    assert compiler.asked[-1] == settings(shape(batch_size))[-1] == found.setting == smallest


def test_a_slice_without_hope_costs_one_compile(tmp_path):
    """Where the formula puts every way far above the memory, only the smallest is asked after."""
    compiler = Compiler(lambda way: False)
    find(compiler, tmp_path, batch_size=1 << 26)
    assert len(compiler.asked) == 1


def test_what_is_kept_says_that_nothing_fits_only_when_it_holds_the_smallest_way(tmp_path):
    find(Compiler(lambda way: False), tmp_path)
    ways = settings(shape())
    assert search.known(shape(), ways, tmp_path) is not None
    (tmp_path / f"{shape().key(ways[-1])}.json").unlink()
    assert search.known(shape(), ways, tmp_path) is None


def test_a_batch_that_does_not_divide_is_refused(tmp_path):
    with pytest.raises(CellError, match=r"batch_size: 1022 cannot be spread evenly over the 4"):
        find(Compiler(), tmp_path, batch_size=1022)


def test_a_compiler_that_breaks_off_is_an_answer_and_the_search_goes_on(tmp_path, monkeypatch):
    """It dies at every way that is not small; each time the next is tried by a new process."""
    started = []

    def lines(argv, *, stdin):
        asked = json.loads(stdin)["settings"]
        started.append(len(asked))
        for way in asked:
            yield {"trying": way}
            if not fits(Setting(**way)):
                raise aot.AotError("compiling for TPU failed: Check failed: x < y")
            answer = Answer(fits=True, needed_bytes=1, usable_bytes=2)
            yield {"setting": way, "answer": vars(answer)}
            return

    monkeypatch.setattr(aot, "lines", lines)
    found = find(None, tmp_path)
    assert found.answer.fits
    assert len(started) == found.tried
    # It may have been this machine's trouble, so it is not kept.
    assert search.recall(shape(), settings(shape())[0], tmp_path) is None


def test_a_compiler_that_always_breaks_off_is_quoted(tmp_path, monkeypatch):
    def lines(argv, *, stdin):
        yield {"trying": json.loads(stdin)["settings"][0]}
        raise aot.AotError("compiling for TPU failed: Check failed: x < y")

    monkeypatch.setattr(aot, "lines", lines)
    found = find(None, tmp_path)
    assert not found.answer.fits
    assert found.answer.said == "the compiler broke off: Check failed: x < y"


def test_being_ended_from_outside_is_no_answer(tmp_path, monkeypatch):
    def lines(argv, *, stdin):
        yield {"trying": json.loads(stdin)["settings"][0]}
        error = aot.AotError("compiling for TPU failed: exit code -9")
        error.code = -9
        raise error

    monkeypatch.setattr(aot, "lines", lines)
    with pytest.raises(aot.AotError, match="exit code -9"):
        find(None, tmp_path)


def test_a_process_that_cannot_begin_is_an_error(tmp_path, monkeypatch):
    def lines(argv, *, stdin):
        raise aot.AotError("libtpu is not installed")
        yield

    monkeypatch.setattr(aot, "lines", lines)
    with pytest.raises(aot.AotError, match="libtpu is not installed"):
        find(None, tmp_path)


def plan_that_compiles() -> str:
    """A script: reads what a process says whose compiler never comes back."""
    compiling = (
        "import time; from study import fit; fit.compiled = lambda *_: time.sleep(600); fit.main()"
    )
    request = json.dumps({"shape": shape().to_dict(), "settings": [vars(Setting())]})
    return (
        "from study import aot; aot.missing = lambda: None\n"
        f"for line in aot.lines(['-c', {compiling!r}], stdin={request!r}): print(line, flush=True)"
    )


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_compiler_outlives_the_plan_that_started_it(start, session, wait_for, how):
    process = start("-c", plan_that_compiles())
    assert "trying" in process.stdout.readline()
    assert len(session(process.pid)) == 2
    process.send_signal(how)
    wait_for(lambda: session(process.pid) == [])
