"""What libtpu schedules for a TPU: instruction bundles, memory and collectives of a program.

A bundle is what a TensorCore issues in one cycle unless it waits for memory, so executed bundles
are a lower bound on cycles. libtpu writes its schedules as text if `LIBTPU_INIT_ARGS` holds
`DUMP.format(folder)` when jax is imported. The format is libtpu 0.0.42.1's and is not documented.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

DUMP = "--xla_jf_dump_to={} --xla_jf_dump_hlo_text=true --xla_jf_dump_llo_text=true"

_BUNDLE = re.compile(r"\s*(?:0x[0-9a-f]+|0)\s+(LB)?(?:LH|LE|PB|PF|CT)?:\s*(>*)\s*(\{\})?")
_LOOP_EXIT = re.compile(r"totalorder %\w+, (\d+) /\* loop exit test \*/")
_ALLOCATION = re.compile(r"space=vmem, size = (0x[0-9a-f]+), offset = (0x[0-9a-f]+|0), scoped")
_COMPUTATION = re.compile(r"(ENTRY )?%(\S+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%(\S+) = (.*)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_BODY = re.compile(r" while\(.*body=%([\w.\-]+)")
_CALL = re.compile(r" call\(.*to_apply=%([\w.\-]+)")
# A reduce-scatter may be a fusion, whose kind has no name here.
_COLLECTIVE = re.compile(
    r" (?:(send|collective-permute|all-gather|reduce-scatter|all-to-all|all-reduce)(?:-start)?\("
    r"|fusion\(.*calls=%all-reduce-scatter)"
)
_SHAPE = re.compile(r"\b[a-z]+(\d+)\[([\d,]*)\]")

# (name of an instruction, its text) -> what to count it as, and how much; None if not at all
Weigh = Callable[[str, str], tuple[str, int] | None]


def executed_bundles(folder: Path, loop_trips: int) -> int:
    """Bundles that one core executes in the program whose schedule is in `folder`.

    Of a conditional, the cheaper branch is counted. A loop inside a fusion whose length is not
    known is counted once.

    Arguments:
      loop_trips: how often each loop of the program runs its body.
    """
    (hlo,) = folder.glob("*-TLP-hlo.txt")
    lengths = {name: _kernel_bundles(path) for name, path in _schedules(folder).items()}

    def weigh(name: str, instruction: str) -> tuple[str, int] | None:
        if name in lengths:
            return name, lengths[name]
        # Equal fusions share one schedule, which has the name of one of them.
        alike = [length for other, length in lengths.items() if _base(other) == _base(name)]
        return (name, min(alike)) if alike and " fusion(" in instruction else None

    return sum(_executed(hlo.read_text(), loop_trips, weigh).values())


def executed_collectives(hlo: str, loop_trips: int, group: int = 1) -> dict[str, tuple[int, int]]:
    """Executed collectives of a compiled program: by kind, their number and the bytes received.

    Arguments:
      hlo: the program's text.
      group: devices of a group, for collectives other than permutations.
    """
    share = (group - 1) / group
    received = {"all-gather": share, "all-reduce": 2 * share, "reduce-scatter": group - 1}
    counts: dict[str, tuple[int, int]] = {}

    def weigh(_: str, instruction: str) -> tuple[str, int] | None:
        match = _COLLECTIVE.search(instruction)
        return (instruction, 1) if match else None

    for instruction, times in _executed(hlo, loop_trips, weigh).items():
        match = _COLLECTIVE.search(instruction)
        assert match is not None
        kind = match[1] or "reduce-scatter"
        shapes = [
            math.prod(map(int, filter(None, dims.split(",")))) * int(bits) // 8
            for bits, dims in _SHAPE.findall(instruction[: match.start()])
        ]
        # A permutation's results are its operand, the copy that arrives, and two tokens.
        size = shapes[0] if kind in ("send", "collective-permute") else sum(shapes)
        number, total = counts.get(kind, (0, 0))
        counts[kind] = number + times, total + round(times * size * received.get(kind, 1))
    return counts


def vmem_bytes(folder: Path) -> int:
    """VMEM of the largest kernel: its windows, its scratch and its spills."""
    return max(
        int(size, 16) + int(offset, 16)
        for path in folder.glob("*-post-delay-converter.txt")
        for size, offset in [("0", "0"), *_ALLOCATION.findall(path.read_text())]
    )


def on_chip_bytes(folder: Path) -> int:
    """Memory on the chip from the lowest to the highest address of buffers that XLA keeps there.

    That memory is VMEM, or v4's CMEM.
    """
    spans = [(0, 0)]
    for path in folder.glob("*memory-space-assignment-allocinfo.txt"):
        for line in path.read_text().splitlines()[1:]:
            buffer, size, offset, *_ = map(int, line.split(","))
            if buffer >= 0:  # the others are the room reserved for kernels
                spans.append((offset, offset + size))
    starts, ends = zip(*spans[1:] or spans, strict=True)
    return max(ends) - min(starts)


def _base(name: str) -> str:
    """The name of an instruction without its number."""
    return re.sub(r"\.\d+$", "", name)


def _schedules(folder: Path) -> dict[str, Path]:
    """The final bundles by the name of their kernel."""
    paths = (p for p in folder.glob("*-final_bundles.txt") if "schedule-analysis" not in p.name)
    return {re.sub(r"^\d+-|-\d+-final_bundles.txt$", "", p.name): p for p in paths}


def _kernel_bundles(path: Path) -> int:
    """Executed bundles of one kernel: those of each loop as often as it runs."""
    loop = _Loop()
    loops = {0: loop}  # the current one of each depth
    for line in path.read_text().splitlines():
        if match := _BUNDLE.match(line):
            is_start, depth, is_empty = match[1], len(match[2]), match[3]
            if is_start:
                loops[depth] = _Loop()
                loops[depth - 1].inner.append(loops[depth])
            # An empty bundle is printed without its depth.
            loop = loop if is_empty else loops[depth]
            loop.bundles += 1
        if loop is not loops[0]:
            # A pipeline's loop begins with a fetch and ends with a write-back, for which its body
            # is skipped.
            loop.extra = max(loop.extra, 2 * ("/* iteration index, stage" in line))
            if match := _LOOP_EXIT.search(line):
                loop.trips = int(match[1])
    return loops[0].total()


@dataclass
class _Loop:
    """A loop of a kernel, or the kernel itself; `trips` include `extra` ones without the body."""

    bundles: int = 0
    trips: int = 1
    extra: int = 0
    inner: list[_Loop] = field(default_factory=list)

    def total(self) -> int:
        each = self.bundles + sum(loop.total() for loop in self.inner)
        return max(1, self.trips - self.extra) * each


def _executed(hlo: str, loop_trips: int, weigh: Weigh) -> Counter[str]:
    """Sums of weights over all executions of instructions of the entry computation."""
    computations: dict[str, list[tuple[str, str]]] = {}
    entry = current = ""
    for line in hlo.splitlines():
        if match := _COMPUTATION.match(line):
            current = match[2]
            computations[current] = []
            entry = current if match[1] else entry
        elif match := _INSTRUCTION.match(line):
            computations[current].append((match[1], match[2]))

    def count(computation: str) -> Counter[str]:
        total: Counter[str] = Counter()
        for name, instruction in computations[computation]:
            if match := _BODY.search(instruction):
                body = count(match[1])
                total.update({key: loop_trips * weight for key, weight in body.items()})
            elif match := _BRANCHES.search(instruction):
                branches = [count(branch.strip(" %")) for branch in match[1].split(",")]
                total.update(min(branches, key=lambda branch: sum(branch.values())))
            elif match := _CALL.search(instruction):
                total.update(count(match[1]))
            elif weighed := weigh(name, instruction):
                total.update(dict([weighed]))
        return total

    return count(entry)
