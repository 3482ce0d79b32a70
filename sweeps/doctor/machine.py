"""`study doctor`: what a study needs of this machine, a line each: ok, warn or fail."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from study.config.host import cores, total_memory
from study.records.mounts import refuse_mounted_bucket
from study.records.storage import RecordError, check_reachable, is_bucket, resolve, write_new
from study.records.wandb_mirror import has_key, wandb_mode, why_offline
from sweeps.doctor.check import Check
from sweeps.ray_cluster.local import environment
from sweeps.runner import compile_cache as compiled
from sweeps.runner.lease_file import LEASE, holder_of
from sweeps.study import Study
from sweeps.text_table import table

MIB, GIB = 2**20, 2**30
PACKAGE = "batch-size-study"
JAX_SECONDS = 120  # that importing JAX and finding its devices may take


def report(
    root: str,
    data: Path,
    *,
    study: Study | None = None,
    address: str | None = None,
    as_json: bool,
) -> int:
    """Prints all checks; returns 1 if one of them failed."""
    found = list(checks(resolve(root).absolute(), data.absolute()))
    if study is not None or address is not None:
        from sweeps.doctor.ray import cluster_checks

        found += cluster_checks(study, address)
    if as_json:
        print(json.dumps([asdict(check) for check in found], indent=1))
    else:
        print(table(("", "", ""), [(c.verdict, c.name, c.text) for c in found]).lstrip("\n"))
    return 1 if any(check.verdict == "fail" for check in found) else 0


def checks(root: Path, data: Path) -> Iterator[Check]:
    yield _python()
    yield from _packages()
    yield _machine()
    yield _bucket(root) if is_bucket(root) else _records(root)
    yield _disk("disk of data", data)
    yield _disk("temporary disk", Path(tempfile.gettempdir()))
    yield _home()
    yield _programs()
    yield _shared_memory()
    yield _ray()
    yield _jax()
    yield _wandb()
    if not is_bucket(root):
        yield _leases(root)
    yield from _data_sets(data)


def _ok(name: str, text: str) -> Check:
    return Check(verdict="ok", name=name, text=text)


def _warn(name: str, text: str) -> Check:
    return Check(verdict="warn", name=name, text=text)


def _fail(name: str, text: str) -> Check:
    return Check(verdict="fail", name=name, text=text)


def _python() -> Check:
    system = f"{platform.system()} {platform.machine()}"
    return _ok("python", f"{platform.python_version()}, {system}")


def _packages() -> Iterator[Check]:
    from packaging.requirements import Requirement  # Ray needs it too

    have = []
    for line in importlib.metadata.requires(PACKAGE) or []:
        need = Requirement(line)
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(need.name)
        except importlib.metadata.PackageNotFoundError:
            yield _fail(need.name, f"is not installed; pip install '{need}'")
            continue
        if not need.specifier.contains(version, prereleases=True):
            yield _fail(need.name, f"{version} is installed; pip install '{need}'")
        have.append(f"{need.name} {version}")
    yield _ok("packages", ", ".join(have))


def _machine() -> Check:
    total = total_memory()
    said = f"{cores()} cores, {total / GIB:.0f} GiB of memory"
    if total < 4 * GIB:
        return _warn("machine", f"{said}; little for more than one cell: study run --parallel 1")
    return _ok("machine", said)


def _disk(name: str, folder: Path) -> Check:
    there = folder
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    said = f"{folder}: {free / GIB:.1f} GiB free"
    if not os.access(there, os.W_OK):
        return _fail(name, f"{there} is read-only; choose another folder")
    if free < 200 * MIB:
        return _fail(name, f"{said}; make room or choose another folder")
    if free < 2 * GIB:
        return _warn(name, f"{said}; a full study may need more")
    return _ok(name, said)


def _records(root: Path) -> Check:
    try:
        refuse_mounted_bucket(root)
    except RecordError as error:
        return _fail("disk of records", str(error))
    return _disk("disk of records", root)


def _bucket(root: Path) -> Check:
    """Whether objects can be made, only if absent, and removed."""
    try:
        probe = check_reachable(root) / f".doctor-{uuid.uuid4().hex[:8]}"
        first, second = write_new(probe, b"?"), write_new(probe, b"?")
        probe.unlink()
    except Exception as error:  # every service has kinds of its own
        said = str(error) if isinstance(error, RecordError) else type(error).__name__
        return _fail("bucket of records", f"{said}; it must let us list, make and remove objects")
    if (first, second) != (True, False):
        return _fail("bucket of records", f"{root} replaces what must be made only if absent")
    return _ok("bucket of records", f"{root}: objects can be listed, made and removed")


def _home() -> Check:
    home = Path.home()
    if not os.access(home, os.W_OK):
        return _fail(
            "home", f"{home} cannot be written, where Ray keeps its token; set HOME to another"
        )
    return _ok("home", f"{home}, for Ray's token")


def _programs() -> Check:
    folder = compiled.folder()
    why = compiled.trouble(folder)
    return _ok("compiled programs", f"{folder}") if why is None else _warn("compiled programs", why)


def _shared_memory() -> Check:
    shm = Path("/dev/shm")
    if not shm.exists():
        return _ok("shared memory", "Ray uses the temporary disk on this system")
    free = shutil.disk_usage(shm).free
    if free < 100 * MIB:
        return _warn(
            "shared memory",
            f"{free / MIB:.0f} MiB in /dev/shm; Ray will use the temporary disk "
            "(in a container: --shm-size=256m)",
        )
    return _ok("shared memory", f"{free / GIB:.1f} GiB in /dev/shm")


def _ray() -> Check:
    address = os.environ.get("RAY_ADDRESS")
    if address:
        return _warn(
            "ray", f"RAY_ADDRESS={address} is ignored; study run --address {address} joins it"
        )
    running = []
    for stat in Path("/proc").glob("[0-9]*/comm"):
        try:
            if stat.read_text().strip() == "raylet":
                running.append(stat.parent.name)
        except OSError:
            continue
    if running:
        return _ok(
            "ray",
            f"a cluster runs here (process {', '.join(running)}); study run starts its own "
            "beside it unless --address is given",
        )
    return _ok("ray", "no cluster runs here; study run starts its own")


def _jax() -> Check:
    """In a process of its own, which may hang or die on a broken driver without harm to us."""
    script = "import jax; d = jax.devices(); print(d[0].platform, len(d), d[0].device_kind)"
    try:
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            timeout=JAX_SECONDS,
            env={**os.environ, **environment()},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _fail(
            "jax", f"found no device in {JAX_SECONDS} s; set JAX_PLATFORMS=cpu to do without"
        )
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return _fail("jax", f"{said}; set JAX_PLATFORMS=cpu to do without an accelerator")
    kind, count, name = done.stdout.split(maxsplit=2)
    return _ok("jax", f"{count} {kind} device{'s' * (count != '1')} ({name.strip()})")


def _wandb() -> Check:
    mode = os.environ.get("WANDB_MODE", "")
    if mode and wandb_mode() in ("offline", "disabled"):
        return _ok("wandb", f"WANDB_MODE={mode}; no network is needed")
    if wandb_mode() == "online" and (why := why_offline()) is not None:
        return _warn("wandb", f"WANDB_MODE={mode}, but {why}, or unset WANDB_MODE")
    if has_key():
        return _ok("wandb", "a key is set, runs are mirrored; without network they are kept here")
    return _ok("wandb", "no key: runs are kept in their folders, no network is needed")


def _leases(root: Path) -> Check:
    paths = sorted(root.glob(f"*/*/{LEASE}"))
    stale = [path.parent for path in paths if holder_of(path) is None]
    # a driver has a lease too, in a folder whose name begins with a dot
    live = set(paths) - {path / LEASE for path in stale}
    running = sum(not path.parent.name.startswith(".") for path in live)
    if stale:
        return _warn(
            "leases",
            f"{len(stale)} left by runs that were killed, such as {stale[0]}; nothing to do: "
            f"the next run takes them over ({running} cells are running)",
        )
    return _ok("leases", f"{running} cells are running under {root}")


def _data_sets(data: Path) -> Iterator[Check]:
    found = False
    for about in sorted(data.glob("*/dataset.json")):
        found = True
        try:
            known = json.loads(about.read_text())
            splits = ", ".join(f"{s['examples']:,} {n}" for n, s in known["splits"].items())
            print_ = known["fingerprint"][:12]
        except (OSError, ValueError, KeyError, TypeError):
            yield _fail(
                "data set", f"{about} cannot be read; remove {about.parent} and make it anew"
            )
            continue
        yield _ok("data set", f"{about.parent}: {splits}; fingerprint {print_}")
    if not found:
        yield _ok("data set", f"none under {data}; study run makes the one it needs")
