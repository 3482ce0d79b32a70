"""What hosts of a network (`tests.hosts`) run: a storage server, a Ray cluster, `study`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from study.bench import gcs_server as gcs
from study.config.hardware import get_slice
from sweeps.ray_cluster.fake_tpu import _host
from sweeps.runner.attempts import Attempt, Attempts
from tests.hosts import Host
from tests.xla import FAST_COMPILE

RAY = str(Path(sys.executable).with_name("ray"))
STUDY = (sys.executable, "-m", "sweeps.cli.app")
SLICE = "v4-16"  # of two hosts
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
        make = (
            "import sys; from study.bench.gcs_server import Server; "
            "print(Server(sys.argv[1], None).bucket())"
        )
        return f"gs://{self._host.run([sys.executable, '-c', make, self._url]).stdout.strip()}/runs"

    def records(self, root: str, study: str) -> Path:
        """A folder with the present records of a study, without checkpoints."""
        folder = f"/tmp/home/records-{time.monotonic_ns()}"
        command = [sys.executable, "-c", _FETCH, f"{root}/{study}", folder]
        self._host.run(command, env=self.environment)
        return self._host.path(folder)

    def attempts(self, root: str, study: str) -> dict[str, tuple[Attempt, ...]]:
        """The attempts at each cell so far."""
        found = self.records(root, study).glob("*/attempts.json")
        return {path.parent.name: Attempts.parse(path.read_bytes()).all for path in found}


def start_head(host: Host, *options: str, env: dict[str, str]) -> str:
    """Starts a cluster as one does by hand; returns its address."""
    _start_ray(host, "--head", "--num-cpus=2", *options, env={"JAX_PLATFORMS": "cpu", **env})
    return f"{host.address}:6379"


def join_as_slice(
    hosts: Sequence[Host], address: str, slice_name: str, *, env: dict[str, str]
) -> None:
    """Makes `hosts` nodes of the cluster that call themselves the hosts of a `SLICE`.

    Arguments:
      slice_name: differs between slices.
    """
    with ThreadPoolExecutor() as pool:
        starts = []
        for rank, host in enumerate(hosts):
            node = _host(slice_name, get_slice(SLICE), rank)
            options = (
                f"--address={address}",
                f"--num-cpus={node['num_cpus']}",
                f"--resources={json.dumps(node['resources'])}",
                "--labels=" + ",".join(f"{name}={v}" for name, v in node["labels"].items()),
            )
            environment = host_environment(rank, slice_name) | env
            starts.append(pool.submit(_start_ray, host, *options, env=environment))
        for start in starts:
            start.result()


def host_environment(rank: int, slice_name: str = "slice") -> dict[str, str]:
    """What a host of a `SLICE` finds in its environment."""
    environment: dict[str, str] = _host(slice_name, get_slice(SLICE), rank)["env_vars"]
    return environment


def start_study(
    host: Host, storage: Storage, *arguments: str, env: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """Starts `study` on a host, with its output in the host's log."""
    variables = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": FAST_COMPILE, **storage.environment}
    return host.start([*STUDY, *arguments], env=variables | (env or {}))


def log(host: Host) -> str:
    """What the commands on a host have printed so far."""
    return host.path("/tmp/home/log").read_text()


def options(name: str, values: Sequence[str]) -> tuple[str, ...]:
    return tuple(word for value in values for word in (name, value))


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
        env={"RAY_raylet_start_wait_time_s": "180", **env},  # 30 is short on a loaded machine
    )
