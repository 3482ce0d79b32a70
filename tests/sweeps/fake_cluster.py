"""A cluster of fake slices in a process of its own: fake_cluster.py KIND...

Says its address, then does what lines on standard input say: "add KIND", "lose NAME",
"notice NAME SECONDS". Answers each with a line.
"""

from __future__ import annotations

import sys

from sweeps.cluster import quiet, temporary
from sweeps.fake_slices import fake_slices

if __name__ == "__main__":
    with temporary() as temp, quiet(temp / "log") as out, fake_slices(sys.argv[1:], temp) as up:
        print(up.address, file=out, flush=True)
        for line in sys.stdin:
            match line.split():
                case ["add", kind]:
                    print(up.add(kind).name, file=out, flush=True)
                case ["lose", name]:
                    up.lose(name)
                    print("lost", file=out, flush=True)
                case ["notice", name, seconds]:
                    up.notice(name, seconds=float(seconds))
                    print("told", file=out, flush=True)
