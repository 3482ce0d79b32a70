"""A cluster of fake slices in a process of its own: fake_cluster.py KIND...

Says its address, then does what lines on standard input say: "add KIND", "kill NAME" (its last
host only), "replace" (slices that have lost a host), "notice NAME SECONDS", "asked". Answers each
with a line.
"""

from __future__ import annotations

import sys

from sweeps.ray_cluster.fake_tpu import fake_slices
from sweeps.ray_cluster.temporary import quiet, temporary

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
                    print(*up.asked(), ".", file=out, flush=True)
                case ["notice", name, seconds]:
                    up.notice(name, seconds=float(seconds))
                    print("told", file=out, flush=True)
