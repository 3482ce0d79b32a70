"""One process of a two-process run: trains a cell and prints what process it was."""

import sys
from pathlib import Path

import jax

from study.training.multihost import join

rank, port, folder, data = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4]
join(f"127.0.0.1:{port}", 2, rank)

import json  # noqa: E402

import numpy as np  # noqa: E402
from jax.sharding import Mesh  # noqa: E402

import study.training.loop  # noqa: E402
import study.training.memory  # noqa: E402
from study.config import Execution, from_dict  # noqa: E402
from study.models.sharding import AXES  # noqa: E402
from study.training.loop import Stopped, train  # noqa: E402

cell = from_dict(json.loads(sys.argv[5]))
how = json.loads(sys.argv[6])
if how.pop("crossed"):
    # Two slices, of which each process holds half, as hosts of a pod may.
    devices = np.array(jax.devices()).reshape(2, 2).T
    study.training.loop.make_mesh = lambda _: Mesh(devices, AXES)
stops = how.pop("stops", [])
values = {"data_root": data, "wandb": False, "chunk_examples": 64, "log_every_percent": 50}
execution = Execution(**values | how)
# By attempt and process: after how many chunks this process wants to stop, if it does.
for after in stops:
    chunks = iter(range(10**9))
    try:
        train(
            cell,
            execution,
            folder=folder,
            group="s",
            should_stop=lambda after=after[rank], chunks=chunks: (
                after is not None and next(chunks) >= after
            ),
        )
    except Stopped as stopped:
        print(stopped, sorted(path.name for path in (folder / "checkpoints").iterdir()))
done = train(cell, execution, folder=folder, group="s")
# Hosts with different amounts of free memory must choose the same microbatch.
study.training.memory.available_memory = lambda: (3 + rank) << 30
print(
    json.dumps(
        {"rank": rank, "step": done["step"], "room": study.training.memory.available_bytes()}
    )
)
