"""`study bench gpu`: every figure of a GPU in one run of under seven minutes.

    python -m study.bench.gpu --wheels DIR --out results/bench

It needs JAX for the card and installs nothing but the wheels in DIR, into a folder of its own.
Each part of `gpu_parts.py` runs in a process of its own and ends with its share of the time, so
that whatever fails or takes long leaves the other parts their rows. The result is
`gpu-<card>.json`; the goals are printed beside the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]
SECONDS = 400.0
# Seconds for each part and its platform. Every process starts JAX and compiles.
BUDGETS = (
    ("losses", "", 150.0),
    ("siglip-kernel", "", 60.0),
    ("errors", "", 60.0),
    ("step", "", 60.0),
    ("glyphs", "", 45.0),
    ("glyphs", "cpu", 45.0),
)
# Goals: the loss's error, its time, and its rate over that of the bare matrix products.
ERROR_RATIO, MATMUL_SHARE = 100.0, 0.6
DEVICE = (
    "import jax, json; d = jax.devices()[0]; "
    "print(json.dumps({'card': d.device_kind, 'platform': d.platform, 'jax': jax.__version__}))"
)


def run(
    *, wheels: Path | None = None, seconds: float = SECONDS, tiny: bool = False
) -> dict[str, Any]:
    """Runs all parts, one after the other, and returns what the file holds.

    Arguments:
      wheels: a folder of wheels that the parts may import.
      seconds: for all parts together.
      tiny: sizes for a dry run on a CPU.
    """
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        env = os.environ | {"PYTHONPATH": os.pathsep.join([folder, *filter(None, sys.path)])}
        # Two of JAX's arrays of B x B logits take more than the default three quarters.
        env["XLA_PYTHON_CLIENT_MEM_FRACTION"] = "0.92"
        if wheels is not None:
            _install(wheels, Path(folder))
        device = _device(env)
        rows: list[Row] = []
        for part, platform, budget in BUDGETS:
            left = seconds - (time.monotonic() - start)
            more = {"JAX_PLATFORMS": platform} if platform else {}
            for row in _part(part, min(budget, left), env | more, tiny):
                rows.append({"part": part} | row)
                print(describe(rows[-1]), flush=True)
    result = device | {"seconds": time.monotonic() - start, "rows": rows, "goals": goals(rows)}
    for goal in result["goals"]:
        print(f"goal  {goal['goal']}: {goal['reached']}", flush=True)
    return result


def _install(wheels: Path, target: Path) -> None:
    files = sorted(map(str, wheels.glob("*.whl")))
    if not files:
        raise SystemExit(f"bench gpu: --wheels {wheels} holds no *.whl file")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*command, "--target", str(target), *files], check=True)


def _device(env: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", DEVICE], env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"bench gpu: JAX does not start: {_last_line(done.stderr)}")
    device: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return device


def _part(part: str, seconds: float, env: dict[str, str], tiny: bool) -> Iterator[Row]:
    """The rows of one part; a last one says why it ended early."""
    if seconds < 1:
        yield {"name": part, "skipped": "time"}
        return
    command = [sys.executable, "-m", "study.bench.gpu_parts", part, str(seconds)]
    command += ["tiny"] * tiny
    with tempfile.TemporaryFile("w+") as stderr:
        process = subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=stderr, text=True
        )
        lines: queue.Queue[str | None] = queue.Queue()

        def read() -> None:
            assert process.stdout
            for line in process.stdout:
                lines.put(line)
            lines.put(None)

        reader = threading.Thread(target=read)
        reader.start()
        end = time.monotonic() + seconds
        try:
            while (line := lines.get(timeout=max(0.0, end - time.monotonic()))) is not None:
                yield json.loads(line)
            if process.wait():
                stderr.seek(0)
                yield {"name": part, "skipped": _last_line(stderr.read())}
        except queue.Empty:
            yield {"name": part, "skipped": f"ended after {seconds:.0f} s"}
        finally:
            process.kill()
            process.wait()
            reader.join()
            assert process.stdout
            process.stdout.close()


def _last_line(text: str) -> str:
    return next(iter(text.strip().splitlines()[-1:]), "no message")


def describe(row: Row) -> str:
    """One line for a row."""
    head = f"{row['part']:14s}{row['name']:32s}" + (
        f"{row['batch_size']:>8,}" if "batch_size" in row else ""
    )
    if "skipped" in row:
        return f"{head}  {row['skipped']}"
    if "t" in row:
        fields = [f"{k} {row[k]:.1e}" for k in ("loss", "dimg", "dtxt", "dt", "db") if k in row]
        return f"{head}  t {row['t']:g}, b {row['b']:g}: error of {', '.join(fields)}"
    line = f"{head}  {row['seconds'] * 1e3:10.2f} ms"
    if "peak_bytes" in row:
        line += f"  {row['peak_bytes'] / 2**20:10,.0f} MiB"
    if row.get("mfu") is not None:
        line += f"  MFU {row['mfu']:.1%}"
    return line


def goals(rows: list[Row]) -> list[dict[str, str]]:
    """The goals, and what was reached, in words; "not measured" without both figures."""

    def find(part: str, name: str, **fields: Any) -> Row | None:
        fields |= {"part": part, "name": name}
        match = (r for r in rows if fields.items() <= r.items() and "skipped" not in r)
        return next(match, None)

    found: list[dict[str, str]] = []

    def add(goal: str, ours: Row | None, other: Row | None, text: Any) -> None:
        reached = "not measured" if ours is None or other is None else text(ours, other)
        found.append({"goal": goal, "reached": reached})

    for batch in sorted(
        {r["batch_size"] for r in rows if r["part"] == "losses" and "seconds" in r}
    ):
        ours = find("losses", "sigmoid", batch_size=batch)
        add(
            f"B = {batch:,}: rate at least {MATMUL_SHARE} of the three matmuls'",
            *(ours, find("losses", "three matmuls", batch_size=batch)),
            lambda a, b: f"{b['seconds'] / a['seconds']:.2f}",
        )
        add(
            f"B = {batch:,}: time at most siglip-kernel's",
            *(ours, find("siglip-kernel", "siglip-kernel", batch_size=batch)),
            lambda a, b: f"{a['seconds'] / b['seconds']:.2f} of it",
        )
    trained = {"t": 117.0, "b": -13.0}
    ours, theirs = (
        find(part, name, **trained)
        for part, name in (("errors", "sigmoid"), ("siglip-kernel", "siglip-kernel"))
    )
    for field in ("loss", "dimg", "dtxt", "dt", "db"):
        add(
            f"error of {field} {ERROR_RATIO:g} times below siglip-kernel's at t = 117, b = -13",
            *(ours, theirs),
            lambda a, b, field=field: f"{b[field] / max(a[field], 1e-30):.0f} times",
        )
    cpu, gpu = (find("glyphs", f"glyphs on {platform}") for platform in ("cpu", "gpu"))
    add("training on glyphs as on CPU", cpu, gpu, _largest_difference)
    return found


def _largest_difference(one: Row, other: Row) -> str:
    pairs = zip(one["losses"], other["losses"], strict=True)
    worst = max(abs(a - b) / abs(b) for a, b in pairs)
    return f"losses of {len(one['losses'])} rows differ by at most {worst:.1e}"


def write(result: dict[str, Any], folder: Path) -> Path:
    """Writes what `run` returned; returns the file."""
    card = re.sub(r"[^a-z0-9]+", "-", result["card"].lower()).strip("-")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"gpu-{card}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m study.bench.gpu")
    parser.add_argument("--wheels", type=Path, help="folder of wheels that the parts may import")
    parser.add_argument(
        "--out", type=Path, default=Path("results/bench"), help="folder of the file"
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for all parts together")
    parser.add_argument("--tiny", action="store_true", help="sizes for a dry run on a CPU")
    options = parser.parse_args()
    result = run(wheels=options.wheels, seconds=options.seconds, tiny=options.tiny)
    print(write(result, options.out))


if __name__ == "__main__":
    main()
