"""What hosts of a network (`tests.hosts`) run: a storage server, a Ray cluster, `study`."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from study.config.hardware import get_slice
from sweeps.ray_cluster.fake_tpu import _host
from tests import gcs
from tests.hosts import Host

RAY = str(Path(sys.executable).with_name("ray"))
STUDY = (sys.executable, "-m", "sweeps.cli.app")
GCS_PORT, DASHBOARD_PORT = 6379, 8265  # Ray's own choice
_STORE = 80_000_000  # bytes, about the least that Ray takes
_FETCH = """
import sys
from study.records.storage import resolve
root = resolve(sys.argv[1])
for name in root.fs.find(root.path):
    if "/checkpoints/" not in name and not name.endswith("/"):
        root.fs.get_file(name, sys.argv[2] + name.removeprefix(root.path.rstrip("/")))
"""


class Storage:
    """A Google Cloud Storage server on a host.

    Attributes:
      environment: variables that send a process on any host to it.
    """

    def __init__(self, host: Host):
        self._host = host
        self._url = url = f"http://{host.address}:4443"
        host.start(gcs.command(url), log="/tmp/home/storage.log")
        self.environment = gcs.Server(url, Path()).environment
        ready = ["curl", "--silent", "--fail", f"{url}/_internal/healthcheck"]
        wait_for(lambda: host.run(ready, check=False).returncode == 0)

    def bucket(self) -> str:
        """Creates a bucket; returns a record root in it."""
        make = "import sys; from tests.gcs import Server; print(Server(sys.argv[1], None).bucket())"
        return f"gs://{self._host.run([sys.executable, '-c', make, self._url]).stdout.strip()}/runs"

    def records(self, root: str, study: str) -> Path:
        """A folder with the present records of a study, without checkpoints."""
        folder = f"/tmp/home/records-{time.monotonic_ns()}"
        command = [sys.executable, "-c", _FETCH, f"{root}/{study}", folder]
        self._host.run(command, env=self.environment)
        return self._host.path(folder)


def start_head(host: Host, *options: str, env: dict[str, str]) -> str:
    """Starts a cluster as one does by hand; returns its address."""
    _start_ray(host, "--head", "--num-cpus=2", *options, env={"JAX_PLATFORMS": "cpu", **env})
    return f"{host.address}:{GCS_PORT}"


def join_as_slice(hosts: Sequence[Host], address: str, slice_name: str, kind: str) -> None:
    """Makes `hosts` nodes of the cluster that call themselves the hosts of a TPU slice.

    Arguments:
      slice_name: differs between slices.
      kind: such as v4-16.
    """
    for rank, host in enumerate(hosts):
        node = _host(slice_name, get_slice(kind), rank)
        labels = ",".join(f"{name}={value}" for name, value in node["labels"].items())
        _start_ray(
            host,
            f"--address={address}",
            f"--num-cpus={node['num_cpus']}",
            f"--resources={json.dumps(node['resources'])}",
            f"--labels={labels}",
            env=node["env_vars"],
        )


def slice_environment(kind: str, rank: int) -> dict[str, str]:
    """What a host of a slice finds in its environment."""
    environment: dict[str, str] = _host("slice", get_slice(kind), rank)["env_vars"]
    return environment


def wait_for(condition: Callable[[], Any], seconds: float = 90) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"still not after {seconds} s"
        time.sleep(0.2)


def copy_data(source: Path, host: Host) -> None:
    """Copies a data root into the host's home, where `study` looks for it."""
    shutil.copytree(source, host.path("/tmp/home/data"))


def _start_ray(host: Host, *options: str, env: dict[str, str]) -> None:
    host.run(
        [
            RAY,
            "start",
            f"--node-ip-address={host.address}",
            f"--object-store-memory={_STORE}",
            *options,
        ],
        env=env,
    )
