"""Durations: written `_steps`, `_examples` or `_percent`, converted here and nowhere else.

A study holds the examples fixed and varies the batch size, so a duration must say which of the
three it means. `Budget` is the length of a run; `to_steps` reads any other duration of it.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from study.config.base import CONFIG

SUFFIXES = ("steps", "examples", "percent")


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Budget:
    """How long a cell trains: exactly one of examples seen, pairs seen or optimizer steps."""

    examples: Annotated[int, Field(gt=0)] | None = None
    pairs: Annotated[int, Field(gt=0)] | None = None
    steps: Annotated[int, Field(gt=0)] | None = None

    def __post_init__(self) -> None:
        given = [n for n in ("examples", "pairs", "steps") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a budget is exactly one of examples, pairs or steps, not {given or 'none'}"
            )

    def in_steps(self, batch_size: int, pairs_per_step: int) -> int:
        """Optimizer steps at this batch size; the last partial step is not taken.

        Raises:
          ValueError: the budget is smaller than one step.
        """
        if self.steps is not None:
            return self.steps
        if self.examples is not None:
            total, per_step, unit = self.examples, batch_size, "examples"
        else:
            assert self.pairs is not None
            total, per_step, unit = self.pairs, pairs_per_step, "pairs"
        if total < per_step:
            raise ValueError(
                f"budget.{unit}: {total} is less than one step of {per_step} {unit}; "
                f"raise the budget or lower batch_size={batch_size}"
            )
        return total // per_step

    @property
    def label(self) -> str:
        """The budget in a few characters: "450M", "1.1T pairs" or "65k steps"."""
        if self.examples is not None:
            return short_count(self.examples)
        unit = "pairs" if self.pairs is not None else "steps"
        return f"{short_count(self.pairs or self.steps or 0)} {unit}"


def short_count(count: int) -> str:
    """A count with three digits at most and a unit.

    >>> short_count(18_000_000_000), short_count(450_000_000), short_count(900)
    ('18B', '450M', '900')
    """
    for unit, name in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= unit:
            return f"{count / unit:.3g}{name}" if count < 1000 * unit else f"{count // unit}{name}"
    return str(count)


def check_one_duration(owner: Any, name: str) -> None:
    """At most one of `<name>_steps`, `<name>_examples`, `<name>_percent` may be set."""
    given = [s for s in SUFFIXES if getattr(owner, f"{name}_{s}") is not None]
    if len(given) > 1:
        raise ValueError(f"{name}: give one of {', '.join(f'{name}_{s}' for s in given)}, not all")


def is_set(owner: Any, name: str) -> bool:
    """Whether the duration `name` of `owner` is given and above zero."""
    return any(getattr(owner, f"{name}_{suffix}") for suffix in SUFFIXES)


def to_steps(owner: Any, name: str, *, batch_size: int, total_steps: int) -> int:
    """The duration `name` of `owner` in steps, rounded, at least 1 when it is above zero.

    Returns 0 when none of its three suffixes is set or it is zero.
    """
    steps = to_exact_steps(owner, name, batch_size=batch_size, total_steps=total_steps)
    return max(1, round(steps)) if steps else 0


def to_exact_steps(owner: Any, name: str, *, batch_size: int, total_steps: int) -> float:
    """The duration `name` of `owner` in steps, not rounded; 0 if it is not set or zero."""
    for suffix in SUFFIXES:
        value = getattr(owner, f"{name}_{suffix}", None)
        if value:
            return {
                "steps": value,
                "examples": value / batch_size,
                "percent": value / 100 * total_steps,
            }[suffix]
    return 0.0


def schedule_points(percent: float, total_steps: int) -> list[int]:
    """The steps at which something due every `percent` of a run happens; the last is the end.

    >>> every(25, 100)
    [25, 50, 75, 100]
    """
    count = max(1, round(100 / percent))
    return sorted({max(1, round(total_steps * k / count)) for k in range(1, count + 1)})
