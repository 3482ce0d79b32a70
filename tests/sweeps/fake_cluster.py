"""A cluster of fake slices in a process of its own: fake_cluster.py KIND...

Says its address, then does what lines on standard input say: "add KIND", "kill NAME" (its last
host only), "replace" (slices that have lost a host), "notice NAME SECONDS", "asked". Answers each
with a line.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from ray import _raylet
from ray.autoscaler.v2.sdk import get_cluster_resource_state
from ray.core.generated import autoscaler_pb2

from study.config.hardware import get_slice
from sweeps.ray_cluster.fake_tpu import FakeSlices, fake_slices
from sweeps.ray_cluster.temporary import quiet, temporary


def client(cluster: FakeSlices) -> Any:
    compiled: Any = _raylet  # without types
    return compiled.GcsClient(address=cluster.address)


def notice(cluster: FakeSlices, name: str, seconds: float) -> None:
    """Tells the cluster that all hosts of a slice go in `seconds`, as a spot machine does."""
    gcs = client(cluster)
    for node in cluster.slices[name].hosts:
        gcs.drain_node(
            node.node_id,
            autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"),
            "spot",
            int((time.time() + seconds) * 1000),
        )


def asked(cluster: FakeSlices) -> list[str]:
    """The kinds of slices that somebody waits for, once each, as an autoscaler is told."""
    state: Any = get_cluster_resource_state(client(cluster))
    heads = {
        name
        for gang in state.pending_gang_resource_requests
        for request in gang.requests
        for name in request.resources_bundle
        if name.startswith("TPU-") and name.endswith("-head")
    }
    return sorted(get_slice(head[len("TPU-") : -len("-head")]).pod for head in heads)


if __name__ == "__main__":
    with temporary() as temp, quiet(temp / "log") as out, fake_slices(sys.argv[1:], temp) as up:
        print(up.address, file=out, flush=True)
        for line in sys.stdin:
            match line.split():
                case ["add", kind]:
                    print(up.add(kind).name, file=out, flush=True)
                case ["kill", name]:
                    (raylet,) = up.slices[name].hosts[-1].all_processes["raylet"]
                    raylet.process.kill()
                    raylet.process.wait()  # a busy machine takes a while, and "replace" looks
                    print("killed", file=out, flush=True)
                case ["replace"]:
                    print(*(new for _, new in up.replace()), file=out, flush=True)
                case ["asked"]:
                    print(*asked(up), ".", file=out, flush=True)
                case ["notice", name, seconds]:
                    notice(up, name, float(seconds))
                    print("told", file=out, flush=True)
