"""Where and how a cell runs: hardware, memory, checkpoints and logging."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.dataclasses import dataclass

from study.config.base import CONFIG, Positive
from study.config.budget import schedule_points
from study.config.hardware import check_slice_name

Percent = Annotated[float, Field(gt=0, le=100)]


# Names of `jax.checkpoint_policies`: what of a block's forward pass is kept for the backward pass.
# Nothing but its input; the results of dense layers; those and the products of attention.
Remat = Literal["nothing_saveable", "dots_with_no_batch_dims_saveable", "dots_saveable"]


def _name_policy(remat: object) -> object:
    """Execution files written before policies had names say true or false."""
    if isinstance(remat, bool):
        return "nothing_saveable" if remat else None
    return remat


def _check_data(folder: str) -> str:
    if "://" in folder and not folder.startswith(("gs://", "file://")):
        raise ValueError("data sets are read from a folder or from gs://BUCKET/FOLDER")
    return folder


def _check_cache(folder: str) -> str:
    if "://" in folder:
        raise ValueError("the data cache is on this machine; give a local folder")
    return folder


def _check_profile(folder: str) -> str:
    if "://" in folder:
        raise ValueError("traces are written to a local folder; copy them from there")
    return folder


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Execution:
    """Where and how a cell runs. It changes no result by more than the rounding of a sum.

    Attributes:
      slice: Machine to run on, by its name in `study.config.hardware` ("v4-32", "v6e-16x2",
        "gpu:h100"); None runs wherever the process is.
      data_root: Folder of the data sets, local or gs://.
      data_cache: Folder of copies of a bucket's files (`study.data.local_cache`); None takes
        $STUDY_DATA_CACHE, or one in the user's cache.
      data_cache_gb: Gigabytes that copies of shards may take; None takes $STUDY_DATA_CACHE_GB, or
        16.
      chunk_examples: Most examples that travel to the devices together, if a batch has not more.
        Small batches share a call of the compiled loop, to save the dispatch of each step.
      eval_batch_size: Images or texts embedded at a time in evaluations, over all devices.
      log_every_percent: Record metrics whenever this percentage of the run has passed.
      checkpoint_every_minutes: Wall-clock minutes between checkpoints, and so the most that a
        killed run repeats. The last step is always saved.
      keep_last: Number of latest checkpoints to keep. With 1, a run whose checkpoint cannot be
        read starts over.
      keep_every_percent: Also save a checkpoint whenever this percentage of the run has passed,
        and keep it.
      wandb: Mirror the metrics to wandb; see `study.records.wandb_mirror`.
      microbatch: Examples per pass through the towers on each device. None passes the whole
        batch at once; "auto" searches for a size that fits in `memory_gib`.
      memory_gib: Memory per device for microbatch="auto"; None takes nine tenths of an
        accelerator's memory, or half of the free memory of the host.
      remat: The policy of `jax.checkpoint_policies` by which a block's activations are recomputed
        in the backward pass: "nothing_saveable" keeps only the block's input,
        "dots_with_no_batch_dims_saveable" also the results of dense layers, "dots_saveable" also
        those of attention's products. None keeps all activations.
      fsdp_min_mib: Shard parameters and optimizer state over the devices of a slice, for arrays of
        at least this many MiB (`study.models.sharding.param_shardings`); None replicates them.
      decode_threads: Threads that decode images; None uses one per core.
      decode_workers: Processes that decode images instead, each on a core and of some 40 MiB; 0
        decodes in threads, which use eight cores at most. One thread decodes images below 4 KiB.
      cores: Cores of a local cell, each used as one device; fewer if the machine has fewer. Use
        more than one for a cell that runs alone, since a sweep is faster with one core per cell.
      profile: Write a `jax.profiler` trace of a few steps to `<folder>/<cell id>`
        (`study.training.profile`); None traces nothing.
      priority: Cells with a higher priority start first among those for the same machine type.
    """

    slice: Annotated[str, AfterValidator(check_slice_name)] | None = None
    data_root: Annotated[str, AfterValidator(_check_data)] = "data"
    data_cache: Annotated[str, AfterValidator(_check_cache)] | None = None
    data_cache_gb: Annotated[float, Field(ge=0)] | None = None
    chunk_examples: Positive = 8192
    eval_batch_size: Positive = 2048
    log_every_percent: Percent = 2.0
    checkpoint_every_minutes: Annotated[float, Field(gt=0)] = 15.0
    keep_last: Positive = 2
    keep_every_percent: Percent | None = None
    wandb: bool = True
    microbatch: Positive | Literal["auto"] | None = None
    memory_gib: Annotated[float, Field(gt=0)] | None = None
    remat: Annotated[Remat | None, BeforeValidator(_name_policy)] = None
    fsdp_min_mib: Annotated[float, Field(ge=0)] | None = None
    decode_threads: Positive | None = None
    decode_workers: Annotated[int, Field(ge=0)] = 0
    cores: Positive = 1
    profile: Annotated[str, AfterValidator(_check_profile)] | None = None
    priority: int = 0

    def kept_steps(self, total_steps: int) -> set[int]:
        """The steps of a run whose checkpoints are kept for good: the last one always."""
        percent = self.keep_every_percent
        return {total_steps, *(schedule_points(percent, total_steps) if percent else ())}
