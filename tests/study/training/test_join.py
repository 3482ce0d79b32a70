"""`join` refuses what cannot work in one line, and the processes it joins can talk."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest

from study.errors import UserError
from study.training.multihost import broadcast_text, join
from tests.xla import xla_flags

JOIN = """
import os, signal, sys
from study.errors import UserError
from study.training.multihost import broadcast_text, join, leave
try:
    join(sys.argv[1], 2, int(sys.argv[2]), seconds=float(sys.argv[3]))
except UserError as error:
    sys.exit(f"error: {error}")
text = broadcast_text("b8-sigmoid-é" if sys.argv[2] == "0" else "ignored")
print(text, flush=True)
if len(sys.argv) > 4:
    if sys.argv[2] == sys.argv[4]:
        os.kill(os.getpid(), signal.SIGKILL)
    broadcast_text("waits for the killed process")
leave()
"""


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("h:1", 2, None), "--process-id missing: give all of"),
        ((None, 2, None), "--coordinator and --process-id missing: give all of"),
        (("h", 2, 0), "--coordinator h: give it as HOST:PORT"),
        (("h:x", 2, 0), "--coordinator h:x: give it as HOST:PORT"),
        (("h:1", 2, 2), "--process-id 2: must be 0 to 1 for --process-count 2"),
        (("h:1", 2, -1), "--process-id -1: must be 0 to 1 for --process-count 2"),
    ],
)
def test_wrong_arguments(arguments, line):
    with pytest.raises(UserError, match=f"^{line}"):
        join(*arguments)


def test_a_port_that_is_taken():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen on port {port} .*another port"):
            join(f"127.0.0.1:{port}", 2, 0)


def test_no_cluster():
    process = run(["-c", "from study.training.multihost import join; join()"])
    error = process.communicate(timeout=120)[1]
    assert "UserError: found no cluster to join" in error.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_no_other_joins(rank):
    """Not an abort with a stack trace, which is how JAX ends its own wait."""
    process = start(free_port(), rank, 2)
    error = process.communicate(timeout=120)[1]
    assert process.returncode == 1, error
    assert "error: not all processes joined at 127.0.0.1:" in error


@pytest.mark.slow
def test_two_processes_join_and_leave():
    port = free_port()
    processes = [start(port, rank, 60) for rank in (0, 1)]
    outputs = [p.communicate(timeout=120) for p in processes]
    assert [p.returncode for p in processes] == [0, 0], outputs
    assert all("b8-sigmoid-é" in out.splitlines() for out, _ in outputs), outputs


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_other(killed):
    port = free_port()
    processes = [start(port, rank, 60, killed) for rank in (0, 1)]
    outputs = [p.communicate(timeout=120) for p in processes]
    codes = [p.returncode for p in processes]
    assert codes[killed] == -signal.SIGKILL, outputs
    assert codes[1 - killed] not in (0, -signal.SIGKILL), outputs


def test_broadcast_of_one_process():
    assert broadcast_text("é" * 256) == "é" * 256
    with pytest.raises(ValueError, match="513 bytes"):
        broadcast_text("x" * 513)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(port, rank, seconds, *killed):
    return run(["-c", JOIN, f"127.0.0.1:{port}", *map(str, (rank, seconds, *killed))])


def run(arguments):
    env = os.environ | {"XLA_FLAGS": xla_flags(1)}
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
