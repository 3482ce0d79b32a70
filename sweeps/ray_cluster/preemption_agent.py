"""Acts on a TPU VM's preemption notice, so that cells can save.

    python -m sweeps.ray_cluster.preemption_agent COMMAND    # run it; at the notice, SIGTERM to it
    python -m sweeps.ray_cluster.preemption_agent            # at the notice, drain the Ray node

`sweeps/ray_cluster/deploy/slice.sh` starts it on each host of a slice; GKE needs none, because its
notice ends the pod.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/preempted"
NOTICE = 30  # seconds between notice and end, by Google's documentation of Spot VMs
_LONG = 300  # seconds that one question waits for a change
_AGAIN = 5.0  # seconds before asking again a server that does not answer


def wait_for_notice(url: str = METADATA, *, again: float = _AGAIN) -> None:
    """Returns once the metadata server says that this machine is being preempted."""
    question = f"{url}?wait_for_change=true&timeout_sec={_LONG}"
    request = urllib.request.Request(url, headers={"Metadata-Flavor": "Google"})
    while True:
        try:
            with urllib.request.urlopen(request, timeout=_LONG + 30) as answer:
                if answer.read().strip() == b"TRUE":
                    return
            # A notice that came before the first question is no change: so that one did not wait.
            request = urllib.request.Request(question, headers={"Metadata-Flavor": "Google"})
        except (urllib.error.URLError, OSError):
            time.sleep(again)


def drain(*, run: Callable[..., object] = subprocess.run) -> None:
    """Tells Ray that this node goes: it takes no new work, and Train's workers are told."""
    ray = Path(sys.executable).with_name("ray")
    run(
        [
            *(str(ray), "drain-node"),
            *("--reason", "DRAIN_NODE_REASON_PREEMPTION"),
            *("--reason-message", "preemption notice of the metadata server"),
            *("--deadline-remaining-seconds", str(NOTICE - 5)),
        ],
        check=True,
    )


def run(command: Sequence[str], *, url: str = METADATA) -> int:
    """Run `command`, and end it with SIGTERM at the notice or at a SIGTERM to this process.

    Returns:
      Its exit code, 128 + N if signal N ended it.
    """
    process = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())

    def terminate_at_notice() -> None:
        wait_for_notice(url)
        print("preemption notice: SIGTERM", file=sys.stderr, flush=True)
        process.terminate()

    threading.Thread(target=terminate_at_notice, name="notice", daemon=True).start()
    code = process.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    if command := sys.argv[1:]:
        sys.exit(run(command))
    wait_for_notice()
    drain()
