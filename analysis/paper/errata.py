"""Where the paper's text and its own numbers disagree, computed from the numbers."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pandas as pd
from scipy import stats

from analysis.paper.as_cells import ROUNDING, run_spread
from analysis.paper.reference import PRINTED_SIZES, reference

WIDTH = 110  # characters of a line
Curves = dict[str, dict[int, float]]  # accuracy by loss and batch size


@dataclass(frozen=True, kw_only=True)
class TextCheck:
    """A statement of the paper's text held against the paper's numbers.

    Attributes:
      where: sections and tables of the paper.
      agrees: whether the numbers, as far as they are printed, support the text.
    """

    name: str
    where: str
    text: str
    numbers: str
    agrees: bool


def check_text() -> list[TextCheck]:
    """All checks, computed from the paper's numbers.

    Raises:
      AnalysisError: the file of the paper's numbers does not exist.
    """
    checks = []
    for name, where, text, compute in _CHECKS:
        agrees, numbers = compute(reference())
        checks.append(TextCheck(name=name, where=where, text=text, numbers=numbers, agrees=agrees))
    return checks


def format_checks(checks: Iterable[TextCheck]) -> str:
    """For a terminal: what the text claims, what the numbers show."""
    lines = ["The paper's text against its own numbers", ""]
    for check in checks:
        verdict = "agree   " if check.agrees else "DISAGREE"
        lines.append(f"{verdict}  {check.name} ({check.where})")
        for line in (f"text: {check.text}", f"numbers: {check.numbers}"):
            lines += textwrap.wrap(line, WIDTH, initial_indent=" " * 10, subsequent_indent=" " * 12)
    return "\n".join(lines)


Compute = Callable[[pd.DataFrame], tuple[bool, str]]  # agrees, and the numbers in words
_CHECKS: list[tuple[str, str, str, Compute]] = []


def _check(name: str, where: str, text: str) -> Callable[[Compute], Compute]:
    """Registers a check of a statement of the paper, in the paper's order."""

    def register(compute: Compute) -> Compute:
        _CHECKS.append((name, where, text, compute))
        return compute

    return register


@_check(
    "the best batch size of SigLiT",
    "Sec. 4.1, Table 8",
    "at 18B examples the model is best at 256k",
)
def _siglit_peak(table: pd.DataFrame) -> tuple[bool, str]:
    sigmoid = _curves(table, "Table 8", "18B")["sigmoid"]
    best = max(sigmoid.values())
    tied = sorted(size for size, value in sigmoid.items() if best - value <= 2 * ROUNDING - 1e-9)
    sizes = ", ".join(map(_size, tied))
    close = ", ".join(_size(size) for size in sorted(sigmoid) if best - sigmoid[size] <= _chance())
    return tied == [262_144], (
        f"{sizes} all print {best:g}, so one decimal cannot distinguish them; single runs, which "
        f"differ by up to {_chance():.2f} by chance, cannot distinguish {close}"
    )


@_check(
    "which loss leads at large batches",
    "Sec. 4.1, 4.2, Tables 5 and 8",
    "at large batches softmax is level with sigmoid or slightly behind it",
)
def _softmax_at_large(table: pd.DataFrame) -> tuple[bool, str]:
    ahead, within, level = [], [], 0
    panels = [("SigLiT", "Table 8", panel) for panel in ("450M", "900M", "3B", "18B")]
    panels += [("SigLIP", "Table 5", panel) for panel in ("3B", "9B")]
    for model, name, panel in panels:
        curves = _curves(table, name, panel)
        for size in sorted(set(curves["sigmoid"]) & set(curves["softmax"])):
            gap = curves["softmax"][size] - curves["sigmoid"][size]
            place = f"{model} {panel} at {_size(size)} by {gap:.1f}"
            if size < 98_304:
                continue
            if gap > _chance():
                ahead.append(place)
            elif gap > 1e-9:
                within.append(place)
            else:
                level += 1
    return not ahead, (
        f"softmax is ahead by more than single runs differ by chance ({_chance():.2f}): "
        f"{'; '.join(ahead)}; by less: {'; '.join(within)}. Level or behind in {level} other "
        "places from 98k on"
    )


@_check(
    "the best batch sizes of SigLIP",
    "Sec. 4.2, Table 5",
    "at 9B examples sigmoid is best at 32k, softmax at 98k and no better than it",
)
def _siglip_peaks(table: pd.DataFrame) -> tuple[bool, str]:
    curves = _curves(table, "Table 5", "9B")
    best = {loss: max(curve, key=lambda size: curve[size]) for loss, curve in curves.items()}
    sigmoid, softmax = (curves[loss][best[loss]] for loss in ("sigmoid", "softmax"))
    return best == {"sigmoid": 32_768, "softmax": 98_304} and sigmoid >= softmax, (
        f"sigmoid {sigmoid:g} at {_size(best['sigmoid'])}, softmax {softmax:g} at "
        f"{_size(best['softmax'])}; between the peaks {sigmoid - softmax:+.1f}, where single runs "
        f"differ by up to {_chance():.2f} by chance"
    )


@_check("SigLiT on four chips in a day", "Table 1, Sec. 4.4", "79.7")
def _few_chips(table: pd.DataFrame) -> tuple[bool, str]:
    rows = table[(table["figure"] == "Table 1") & table["x"].str.contains("B/8")]
    places = rows["panel"].str.partition(" (")[0]
    values = dict(zip(places, rows["value"].astype(float), strict=True))
    return len(set(values.values())) == 1, "; ".join(f"{k}: {v:g}" for k, v in values.items())


@_check(
    "the default recipe at 3B examples",
    "Appendix C, Tables 5, 6 and 7",
    "the same recipe was trained for the same 3B examples in all three",
)
def _default_recipe(table: pd.DataFrame) -> tuple[bool, str]:
    default = table[(table["figure"] == "Table 6") & table["series"].str.startswith("default")]
    six = dict(zip(default["x"].astype(int), default["value"], strict=True))
    five = _curves(table, "Table 5", "3B")["sigmoid"]
    mean, spread = _five_runs(table, "Sigmoid")
    shared = sorted(set(six) & set(five))
    pairs = [f"{_size(size)}: Table 6 {six[size]:g}, Table 5 {five[size]:g}" for size in shared]
    return all(abs(six[size] - five[size]) <= 2 * (spread + ROUNDING) for size in shared), (
        f"{'; '.join(pairs)}; Table 7 at 32k: {mean:g} +- {spread:g}. The difference is many times "
        "the spread of five runs, and of opposite sign at 8k and 32k"
    )


@_check(
    "sigmoid against softmax at 32k, five runs each",
    "Appendix C, Tables 5 and 7",
    "the gap has closed at 32k",
)
def _repeated_runs(table: pd.DataFrame) -> tuple[bool, str]:
    (sigmoid, sigmoid_sd), (softmax, softmax_sd) = (
        _five_runs(table, loss) for loss in ("Sigmoid", "Softmax")
    )
    gap = sigmoid - softmax
    # Standard deviations and means are printed to one decimal; the widest they may be.
    error = math.hypot(sigmoid_sd + ROUNDING, softmax_sd + ROUNDING) / math.sqrt(5)
    curves = _curves(table, "Table 5", "3B")
    once = curves["sigmoid"][32_768] - curves["softmax"][32_768]
    return abs(once - gap) <= 2 * (math.hypot(sigmoid_sd, softmax_sd) + 2 * ROUNDING), (
        f"five runs: {gap:+.1f} (standard error at most {error:.2f}); one run in Table 5: "
        f"{once:+.1f}. Single runs differ by as much as this gap"
    )


@_check(
    "how long the runs with masked negatives are",
    "Sec. 4.8",
    "900 million steps at a batch of 16k",
)
def _masked_steps(table: pd.DataFrame) -> tuple[bool, str]:
    pairs = float(table.loc[table["metric"] == "negative pairs in one batch", "value"].iloc[0])
    size = 16_384
    return False, (
        f"that would be {900e6 * size:.3g} examples; 900 million examples are "
        f"{900_000_000 // size:,} steps, as for the other runs of Table 8. (Its count of "
        f"negatives, {pairs / 1e6:.0f}M, fits: {size * (size - 1):,}.)"
    )


@_check(
    "the sign of b in the formula of the loss",
    "Sec. 3.2, Algorithm 1",
    "the bias starts at -10 so that training starts near the prior",
)
def _sign_of_b(table: pd.DataFrame) -> tuple[bool, str]:
    n, bias = 16_384, -10.0

    def loss(b: float) -> float:
        return math.log1p(math.exp(-b)) + (n - 1) * math.log1p(math.exp(b))

    return False, (
        f"at b = -10, n = {n} and similarities of zero Algorithm 1 gives {loss(bias):.2f}, the "
        f"printed formula, which adds b after the minus sign, {loss(-bias):,.0f}: the formula has "
        "the sign of b wrong"
    )


def _chance() -> float:
    """The difference between two single runs that chance exceeds in one of twenty cases."""
    difference = run_spread().of_difference()
    return difference.sd * float(stats.t.ppf(0.975, difference.dof))


def _curves(table: pd.DataFrame, name: str, panel: str) -> Curves:
    """One panel of Table 5 or 8."""
    rows = table[(table["figure"] == name) & table["panel"].str.startswith(panel)]
    return {
        series.lower(): dict(zip(own["x"].astype(int), own["value"], strict=True))
        for series, own in rows.groupby("series")
    }


def _five_runs(table: pd.DataFrame, loss: str) -> tuple[float, float]:
    """Mean and standard deviation of the five ViT-Adafactor runs in Table 7."""
    rows = table[(table["figure"] == "Table 7") & (table["series"] == f"{loss}, ViT-Adafactor")]
    mean, spread = (rows.loc[rows["metric"].str.contains(m), "value"] for m in ("mean", "std"))
    return float(mean.iloc[0]), float(spread.iloc[0])


def _size(size: int) -> str:
    return PRINTED_SIZES.get(size, f"{size // 1024}k")
