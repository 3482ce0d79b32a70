"""Starts a Ray cluster for one run and ends it with the run, or joins one that is running.

What was found on Ray 2.60 and is dealt with here: its two agents outlive a killed driver by more
than a minute; it needs a minute to find out that nobody answers, or that this machine is not a node
of the cluster; it rewrites a loopback address to this machine's address in the network, where the
cluster of `study cluster fake` does not listen; it finds the token that a cluster requires only
where it was not told the address.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from study.records.storage import format_error
from sweeps.ray_cluster.env import NICENESS, environment, gpus
from sweeps.ray_cluster.temporary import quiet, watchdog
from sweeps.study import StudyError

STORE = 80 * 2**20  # bytes, the least that Ray takes; a run passes a few kilobytes through it
NAMESPACE = "study"  # of the names of workers that outlive their driver
ANSWER_SECONDS = 8.0  # Ray prints a warning after 5 s, and another one after 10
_SUBMIT = "ray job submit --address http://HEAD:8265 -- study run STUDY"

T = TypeVar("T")


@dataclass(kw_only=True)
class Cluster:
    """A Ray cluster that this process uses: its own, or one that it has joined."""

    ray: Any
    cpus: int = 0  # of our own; 0 of another
    environment: dict[str, str] = field(default_factory=dict)  # of workers, if not the cluster's
    gpus_per_worker: int = 0
    processes: list[Any] = field(default_factory=list)  # of our own

    @property
    def own(self) -> bool:
        return self.cpus > 0

    def dead(self) -> str | None:
        """What of Ray has died, in a few words; None if it is alive."""
        node = self.ray._private.worker._global_node
        if node is None or not self.ray.is_initialized():
            return "it has ended"
        gone = node.dead_processes() if self.own else []
        return gone[0][0] if gone else None

    def kill(self) -> None:
        """Ends every Ray process of ours, the polite way having failed or taking too long.

        The workers too, which Ray has started since, and which would finish what they compile.
        """
        for process in [*(_processes() if self.own else []), *self.processes]:
            with contextlib.suppress(Exception):  # gone, or another process by now
                process.kill()


@contextlib.contextmanager
def start(*, cpus: int, temp: Path) -> Iterator[Cluster]:
    """A cluster of our own, whatever else runs on this machine.

    Arguments:
      temp: from `temporary`.

    Raises:
      StudyError: Ray does not start.
    """
    settings = {
        "address": "local",
        "num_cpus": cpus,
        "include_dashboard": False,
        "object_store_memory": STORE,
        "_temp_dir": str(temp),
        "_node_ip_address": "127.0.0.1",
        "runtime_env": {"env_vars": environment() | _scratch(temp)},
    }
    cluster = Cluster(ray=_ray(), cpus=cpus, gpus_per_worker=1 if gpus() else 0)
    reaper: subprocess.Popen[bytes] | None = None
    try:
        with _no_services():
            _init(
                settings,
                "Ray did not start: {}; `study doctor` may say why, and `study work` and `study "
                "train` need no Ray",
            )
        cluster.processes = _processes()
        reaper = _reaper([process.pid for process in cluster.processes])
        yield cluster
    finally:
        cluster.processes = [*cluster.processes, *_processes()]
        with contextlib.suppress(Exception):
            cluster.ray.shutdown()
        cluster.kill()
        if reaper is not None:
            reaper.kill()
            reaper.communicate()


@contextlib.contextmanager
def join(address: str) -> Iterator[Cluster]:
    """The cluster at `address`, from `find_address`; it goes on afterwards.

    Raises:
      StudyError: it cannot be joined.
    """
    ray = _ray()
    settings: dict[str, Any] = {"address": address, "namespace": NAMESPACE}
    if any(node.startswith("127.") for node in check_member(address)):
        from ray._private import ray_constants

        ray_constants.ENABLE_RAY_CLUSTER = False
        settings["_node_ip_address"] = "127.0.0.1"
    try:
        _init(settings, f"cannot join the cluster at {address}: {{}}")
        # Other processes of ours may run on an accelerator.
        yield Cluster(ray=ray, environment=environment())
    finally:
        with contextlib.suppress(Exception):
            ray.shutdown()


def find_address(option: str | None, environ: Mapping[str, str] = os.environ) -> str | None:
    """HOST:PORT of the cluster to join: `option`, else RAY_ADDRESS; None to start one.

    `ray job submit` sets RAY_ADDRESS for what it runs.

    Raises:
      StudyError: no such address, or nobody answers there.
    """
    address = option or environ.get("RAY_ADDRESS") or "local"
    name = f"--address {address}" if option else f"RAY_ADDRESS={address}"
    if address == "local":
        return None
    if address == "auto":
        from ray._private.services import canonicalize_bootstrap_address_or_die

        try:
            address = canonicalize_bootstrap_address_or_die("auto")
        except (ConnectionError, ValueError) as error:
            reason = format_error(error, max_chars=200).partition(". Please")[0]
            raise StudyError(f"{name}: {reason}; start a cluster, or give HOST:PORT") from None
    if "://" in address:
        raise StudyError(
            f"{name}: give HOST:PORT on a node of the cluster, or submit a job from here: {_SUBMIT}"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise StudyError(f"{name}: give HOST:PORT, as `ray status` shows it, or auto")
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise StudyError(
            f"no Ray cluster answers at {address}: {reason}; `--address local` starts one"
        ) from None
    return address


def check_member(address: str) -> list[str]:
    """The addresses of the cluster's nodes that run on this machine.

    Raises:
      StudyError: there are none, or `address` is not that of a cluster.
    """
    from ray._private.services import find_node_ids
    from ray.exceptions import RpcError

    try:
        with quiet(Path(os.devnull), errors=True):  # the C++ part of Ray prints what it misses
            nodes = _within(ANSWER_SECONDS, lambda: _ask_for_nodes(address))
    except (TimeoutError, RpcError):
        raise StudyError(
            f"what answers at {address} is not a Ray cluster of this version of Ray; give the "
            "port that `ray start --head` printed (6379 by default)"
        ) from None
    except Exception as error:
        raise StudyError(f"cannot join the cluster at {address}: {_reason(error)}") from error
    here = find_node_ids()
    addresses = [
        info.node_manager_address
        for node_id, info in nodes.items()
        if info.state == 0 and node_id.hex() in here
    ]
    if not addresses:
        raise StudyError(
            f"this machine is not a node of the cluster at {address}: run this on its head, or "
            f"submit it from here: {_SUBMIT}"
        )
    return addresses


def _ask_for_nodes(address: str) -> dict[Any, Any]:
    """The nodes of a cluster by id; enables the token of this user if the cluster requires one."""
    from ray import _raylet
    from ray._private.authentication import authentication_token_setup
    from ray.exceptions import AuthenticationError

    raylet: Any = _raylet  # compiled, without types
    for attempt in (1, 2):
        try:
            client = raylet.GcsClient(address=address)
            return dict(client.get_all_node_info(timeout=ANSWER_SECONDS))
        except AuthenticationError:
            # `ray start --head` requires a token wherever ~/.ray/auth_token exists, and every
            # `ray.init` that starts a cluster writes that file. Only address "auto" makes Ray use
            # it for joining.
            enable = authentication_token_setup.maybe_enable_token_auth_if_token_available
            if attempt == 2 or not enable(warn_if_disabled=False):
                raise
    raise AssertionError


def _within(seconds: float, action: Callable[[], T]) -> T:
    """The result of an action that takes no time-out; raises TimeoutError."""
    result: Future[T] = Future()

    def act() -> None:
        try:
            result.set_result(action())
        except Exception as error:
            result.set_exception(error)

    threading.Thread(target=act, daemon=True).start()
    return result.result(seconds)


def _ray() -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # no network
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.update(NICENESS)
    import ray

    return ray


def _init(settings: Mapping[str, Any], failure: str) -> None:
    """Starts or joins a cluster; the reason why not fills the gap in `failure`."""
    try:
        _ray().init(**settings, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        raise StudyError(failure.format(_reason(error))) from error


@contextlib.contextmanager
def _no_services() -> Iterator[None]:
    """Starts Ray without the servers that a run of our own does not use.

    Even with `include_dashboard=False` Ray 2.60 starts a dashboard process, an autoscaler and a log
    monitor, which take one to two seconds of every start and one of every end.
    """
    from ray._private.node import Node

    names = ("start_api_server", "start_monitor", "start_log_monitor")
    # Another version of Ray may not have them, and then starts what it likes.
    methods = {name: getattr(Node, name) for name in names if hasattr(Node, name)}
    for name in methods:
        setattr(Node, name, lambda *_, **__: None)
    try:
        yield
    finally:
        for name, method in methods.items():
            setattr(Node, name, method)


def _reason(error: Exception) -> str:
    text = format_error(error, max_chars=300)
    if "AuthenticationError" in "".join(traceback.format_exception(error)):
        return (
            "it requires another token: copy ~/.ray/auth_token of its head to this user's home, or "
            "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
        )
    if "Version mismatch" in text:
        return f"{text}; install the cluster's versions here"
    return text


def _scratch(temp: Path) -> dict[str, str]:
    """Where workers put temporary files: workers that are killed leave them, wandb's for one."""
    folder = temp / "tmp"
    folder.mkdir(exist_ok=True)
    return {"TMPDIR": str(folder)}


def _processes() -> list[Any]:
    """Ray's processes among our descendants; other children of this process are not our business.

    A process object knows when its process started, so a number that was given to another
    process since is not mistaken for it.
    """
    import psutil
    import ray

    home = str(Path(ray.__file__).parent)
    processes = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            line = " ".join(process.cmdline())
            if home in line or line.startswith("ray::"):
                processes.append(process)
    return processes


def _reaper(pids: list[int]) -> subprocess.Popen[bytes]:
    """Kills `pids` when this process is gone."""
    return watchdog("read -r _; kill -9 " + " ".join(map(str, pids)))
