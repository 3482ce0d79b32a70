"""One cell on a slice: a task that holds its lease, and a process on every host.

`run_gang` is the task. It runs on a machine that is not taken away, and drives one `JaxTrainer`,
whose workers are the hosts. Trying again is not the trainer's business but the queue's, for every
try is admitted anew and may get another slice: all of the trainer's own budgets are nought.

What was found on Ray 2.60 and is dealt with here: `label_selector` is ignored beside `topology`,
so that a one-host cell could land on a host of a larger slice; a host that dies without notice
counts as a bug; workers that wait for a slice fail, again and again, without a limit; every worker
is sent to a working directory that goes with the cluster.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from study.config import Execution, from_dict
from study.config.hardware import Slice, get_slice
from study.records.storage import is_bucket, resolve
from sweeps.runner.capacity import cores, cpu_hosts
from sweeps.runner.stop_watch import Watched, watch
from sweeps.runner.worker import Outcome, Task, ended, load, note, outcome_of, take

PLACED = 120.0  # seconds for the processes of all hosts to start, once their slice was free
LOST = 20.0  # seconds in which Ray finds out that a host is gone
_QUICK = {  # Ray's own settings, read by the processes that it starts for a trainer
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(PLACED),
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


class Ended(Exception):
    """Carries the outcome of a worker's failure to whoever holds the lease."""

    def __init__(self, outcome: Outcome):
        super().__init__(outcome)
        self.outcome = outcome


def run_gang(task: Task, environment: dict[str, str]) -> Outcome:
    """Trains one cell on a slice, under its lease. Returns whatever happens."""
    folder = resolve(task.folder)
    lease = take(folder)
    if isinstance(lease, Outcome):
        return lease
    with lease, watch(Watched(driver=task.driver, cell=task.folder)) as stop:
        if stop.is_set():
            return Outcome(end="stopped", pid=os.getpid())
        token = lease.holder.token
        outcome = _fit(task, environment, Watched(
            driver=task.driver, cell=task.folder, lease=str(lease.path), token=token
        ))  # fmt: skip
        if lease.lost.is_set():
            return Outcome(end="held", pid=os.getpid(), error="another process took it over")
        note(outcome, folder)
        return outcome


def _fit(task: Task, environment: dict[str, str], watched: Watched) -> Outcome:
    os.environ.update(_QUICK)
    import ray
    from ray.train.v2.api.config import FailureConfig, LoggingConfig, RunConfig
    from ray.train.v2.api.exceptions import ControllerError, PreemptionError, TrainingFailedError
    from ray.train.v2.jax import JaxTrainer

    from sweeps.runner.jax_backend import SliceBackend

    assert task.slice is not None
    wanted = get_slice(task.slice)
    scratch = Path(tempfile.mkdtemp(prefix="study-gang-"))
    # Ray Train leaves files of its own beside the records; it insists that all hosts see them.
    storage = resolve(task.folder).parent / ".ray"
    if wanted.chip.kind == "cpu":
        environment = environment | {"JAX_PLATFORMS": "cpu"}
    trainer = JaxTrainer(
        work,
        train_loop_config={"task": asdict(task), "watched": asdict(watched)},
        jax_config=SliceBackend(
            use_tpu=wanted.chip.kind != "gpu",  # what it means on CPU hosts is to join them
            use_gpu=wanted.chip.kind == "gpu",
            logs=task.folder,
            nodes=str(scratch / "nodes.json"),
        ),
        scaling_config=scaling(wanted, cpu_hosts(ray.nodes())),
        run_config=RunConfig(
            name=resolve(task.folder).name,
            storage_path=str(storage),
            worker_runtime_env={"env_vars": environment},
            logging_config=LoggingConfig(log_level="ERROR"),
            failure_config=FailureConfig(
                max_failures=0, max_preemption_failures=0, controller_failure_limit=0
            ),
        ),
    )
    try:
        result = trainer.fit()
        return Outcome(**cast(Any, result).return_value)
    except PreemptionError as error:
        return _outcome("preempted", error)
    except ControllerError as error:
        why = type(error.controller_failure).__name__
        return _outcome("unplaced" if "Startup" in why else "crashed", error.controller_failure)
    except TrainingFailedError as error:
        failures: dict[int, Exception] = getattr(error, "worker_failures", {})
        return _worst(list(failures.values()) or [error], _hosts(scratch / "nodes.json"))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if not is_bucket(storage):
            shutil.rmtree(storage / resolve(task.folder).name, ignore_errors=True)


def scaling(wanted: Slice, cpus: list[Any]) -> Any:
    """How many workers, on what: one for each host, so that a host's chips are in one process.

    cpus: the nodes that cells for hosts of CPUs may use, for others have cores too.
    """
    from ray.train.v2.api.config import ScalingConfig

    if wanted.chip.kind == "tpu":
        chips = float(wanted.chips_per_host)
        if wanted.hosts == 1:
            return ScalingConfig(
                use_tpu=True,
                num_workers=1,
                resources_per_worker={"TPU": chips},
                label_selector={"ray.io/tpu-pod-type": wanted.pod_type},
            )
        return ScalingConfig(
            use_tpu=True,
            num_workers=wanted.hosts,
            topology=wanted.topology,
            accelerator_type=wanted.accelerator_type,
            resources_per_worker={"TPU": chips},
        )
    if wanted.chip.kind == "gpu":
        return ScalingConfig(
            use_gpu=True,
            num_workers=wanted.hosts,
            accelerator_type=wanted.accelerator_type,
            resources_per_worker={"GPU": wanted.chips_per_host},
        )
    ids = ",".join(node["NodeID"] for node in cpus)  # with a space between two none is found
    return ScalingConfig(
        num_workers=wanted.hosts,
        resources_per_worker={"CPU": cores(cpus)},
        placement_strategy="STRICT_SPREAD",
        label_selector={"ray.io/node-id": f"in({ids})"},
    )


def work(config: dict[str, Any]) -> dict[str, Any]:
    """What the process on each host runs; the first one's answer is the cell's."""
    try:
        return _work(config)
    finally:
        from sweeps.runner.jax_backend import close_log

        close_log()


def _work(config: dict[str, Any]) -> dict[str, Any]:
    import jax
    import ray.train

    # Ray Train lets everything through that is worth knowing, and Orbax tells forty lines a save.
    logging.getLogger("absl").setLevel(logging.WARNING)
    task, watched = Task(**config["task"]), Watched(**config["watched"])
    folder = resolve(task.folder)
    noticed = False
    with watch(watched) as stop:

        def asked() -> bool:
            nonlocal noticed
            # A barrier: every process asks, at every step that any of them asks at.
            noticed = ray.train.get_preemption_info() is not None
            return noticed or stop.is_set()

        try:
            done = load(task.entry)(
                from_dict(task.cell),
                Execution(**task.execution),
                folder=folder,
                group=task.group,
                run_name=task.run_name,
                should_stop=asked,
            )
        except Exception as error:
            outcome = outcome_of(error, folder)
            if outcome.end != "stopped":
                # The others may be waiting for this process: the trainer must end them.
                raise Ended(outcome) from error
            if noticed:
                outcome = _outcome("preempted", error)
            return asdict(outcome)
    # The record is written by JAX's first process, which need not be Ray's first worker.
    if jax.process_index() != 0:
        done = {"status": done["status"]}
    return asdict(ended(done))


def _worst(failures: list[Exception], hosts: list[str]) -> Outcome:
    """What it means that workers failed so: a lost host explains whatever the others raised."""
    carried = [getattr(f, "_base_exc", f) for f in failures]
    said = [c.outcome for c in carried if isinstance(c, Ended)]
    for end in ("disk", "bad input", "held"):
        for outcome in said:
            if outcome.end == end:
                return outcome
    died = [c for c in carried if not isinstance(c, Ended)]
    if _lost(hosts, LOST if died or len(hosts) > 1 else 0.0):
        return _outcome("preempted", None, "a host of its slice was lost")
    return _outcome("crashed", died[0]) if died else said[0]


def _lost(hosts: list[str], seconds: float) -> bool:
    """Whether one of the nodes is gone, or goes within so many seconds."""
    import ray

    until = time.monotonic() + seconds
    while True:
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        if not set(hosts) <= alive:
            return True
        if time.monotonic() > until:
            return False
        time.sleep(0.5)


def _hosts(path: Path) -> list[str]:
    try:
        return list(json.loads(path.read_text()))
    except (OSError, ValueError):
        return []


def _outcome(end: Any, error: Exception | None, text: str = "") -> Outcome:
    line = text or " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return Outcome(end=end, pid=os.getpid(), error=line)
