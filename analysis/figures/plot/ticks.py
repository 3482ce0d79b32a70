"""Which ticks of an axis have labels: the most that stand apart at the size that is drawn."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FixedLocator, Locator

GAP = 0.06  # inches between the labels of neighbouring ticks
Choice = tuple[Sequence[float], Sequence[float]]


@functools.lru_cache(4096)
def text_width(words: str, family: str, size: float) -> float:
    """Inches that words take, set in a font of this size in points."""
    font = FontProperties(family=family, size=size)
    return float(text_to_path.get_text_width_height_descent(words, font, False)[0]) / 72


class FittingLocator(Locator):
    """Ticks whose labels do not collide, chosen when the axis is drawn and its length known."""

    def __init__(self, choices: Sequence[Choice], format_tick: Callable[[float], str]) -> None:
        """Args:
        choices: the first fits whose first list does, or else the last; of its second list those
          ticks are added for which there is room.
        format_tick: the label of a tick.
        """
        self.choices, self.format_tick = choices, format_tick

    def __call__(self) -> Sequence[float]:
        fitting: list[float] = []
        for ticks, others in self.choices:
            fitting = self._thin(others, self._thin(ticks))
            if set(ticks) <= set(fitting):
                break
        return sorted(fitting)

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        return self()

    def _thin(self, ticks: Sequence[float], placed: Sequence[float] = ()) -> list[float]:
        """The ticks `placed`, and of the others those that collide with none before them."""
        kept = list(placed)
        for tick in ticks:
            if all(self._apart(tick, other) for other in kept):
                kept.append(tick)
        return kept

    def _apart(self, one: float, other: float) -> bool:
        """Whether the labels of two ticks have a gap between them."""
        axis: Any = self.axis
        axes, flat = axis.axes, axis.axis_name == "x"
        length = (axes.bbox.width if flat else axes.bbox.height) / axes.figure.dpi
        ends = axis.get_transform().transform(np.array([*axis.get_view_interval(), one, other]))
        distance = abs((ends[3] - ends[2]) / (ends[1] - ends[0])) * length
        label = axis.majorTicks[0].label1
        size = float(label.get_fontsize())
        if not flat:
            return bool(distance >= 1.2 * size / 72 + GAP / 2)
        words = [self.format_tick(tick) for tick in (one, other)]
        widths = [text_width(word, label.get_fontfamily()[0], size) for word in words]
        return bool(distance >= sum(widths) / 2 + GAP)


class UnlabelledLocator(FixedLocator):
    """Minor ticks at those of some values that have no label."""

    def __init__(self, ticks: Sequence[float]) -> None:
        super().__init__(ticks)
        self.ticks = ticks

    def __call__(self) -> Sequence[float]:
        axis: Any = self.axis
        labelled = axis.get_majorticklocs()
        return [tick for tick in self.ticks if not np.isclose(tick, labelled).any()]


def every_other(ticks: Sequence[float]) -> list[Choice]:
    """All ticks, every second, every third, and so on."""
    return [(ticks[::stride], ()) for stride in range(1, len(ticks) + 1)]


def keep_ends(ticks: Sequence[float]) -> list[Choice]:
    """All ticks, or the first, the last, and those between for which there is room."""
    return [(ticks, ()), ([*ticks[:1], *ticks[1:][-1:]], ticks[1:-1])]
