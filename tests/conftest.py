"""Eight fake CPU devices for every test that imports jax, and each program compiled once."""

import functools
import gc
import os
import platform
import sys
from pathlib import Path

import pytest

from study.bench.gcs_server import CLIENTS
from tests.xla import xla_flags

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = xla_flags(8)
CACHE = Path(__file__).parents[1] / ".pytest_cache" / "jax"
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(CACHE)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
os.environ.update(CLIENTS)


def pytest_collection_finish():
    """What was imported stays: the collector took 3 % of the time to walk it again and again."""
    gc.freeze()


@pytest.fixture(scope="session")
def small_glyphs(tmp_path_factory) -> Path:
    """A small glyphs data set with all its parts: `<root>/glyphs`, embeddings `hog-lda-16`."""
    from study.data.glyphs import hog_lda
    from study.data.glyphs.write import write_glyphs

    folder = tmp_path_factory.mktemp("data") / "glyphs"
    dataset = write_glyphs(folder, workers=1, views=1, limit_characters=120)
    assert hog_lda.embed(dataset, dim=16, workers=1) == "hog-lda-16"
    return folder


@pytest.fixture(scope="session")
def gcs(tmp_path_factory):
    """A Google Cloud Storage server that serves `gs://` during the session."""
    from study.bench.gcs_server import environment, server

    # Copies of objects are no use to another session.
    cache = {"STUDY_DATA_CACHE": str(tmp_path_factory.mktemp("data_cache"))}
    with (
        server(tmp_path_factory.mktemp("gcs")) as running,
        environment(running.environment | cache),
    ):
        yield running


@pytest.fixture(scope="session")
def compiled_for_tpu():
    """`compiled_for_tpu(case)`: the answer of `tpu_programs.py`, compiled once in a session."""
    from study.planning import tpu_compile

    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        pytest.skip("libtpu, which compiles for TPUs, exists for Linux on x86-64 only")
    programs = str(Path(__file__).parent / "study" / "planning" / "tpu_programs.py")

    @functools.cache
    def compiled(case):
        (found,) = tpu_compile.run_python([programs, case], stdin="")
        return found

    return compiled
