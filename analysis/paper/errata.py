"""Where the paper's text and its own numbers do not say the same, worked out from the numbers."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from analysis.paper.as_cells import ROUNDING
from analysis.paper.reference import reference

WIDTH = 110


@dataclass(frozen=True, kw_only=True)
class TextCheck:
    """One statement of the paper's text held against the paper's numbers.

    agrees: whether the numbers, as far as they are printed, bear the text out.
    """

    name: str
    where: str
    text: str
    numbers: str
    agrees: bool


def check_text() -> list[TextCheck]:
    """All of them, computed from the paper's numbers.

    Raises:
      AnalysisError: the paper's numbers are not there.
    """
    table = reference()
    return [
        _peak(table),
        _softmax_at_large(table),
        _scratch_peak(table),
        _few_chips(table),
        _defaults(table),
        _repeats(table),
        _steps(table),
        _formula(),
        _languages(table),
        _two_versions(table),
    ]


def format_checks(found: Iterable[TextCheck]) -> str:
    """For a terminal: what the text says, what the numbers say."""
    lines = ["The paper's text against its own numbers", ""]
    for one in found:
        lines.append(f"{'agree   ' if one.agrees else 'DISAGREE'}  {one.name} ({one.where})")
        for said in (f"text: {one.text}", f"numbers: {one.numbers}"):
            lines += textwrap.wrap(said, WIDTH, initial_indent=" " * 10, subsequent_indent=" " * 12)
    return "\n".join(lines)


def _curves(table: pd.DataFrame, name: str, panel: str) -> dict[str, dict[int, float]]:
    """Accuracy by batch size of each loss, in one panel of Table 5 or 8."""
    rows = table[(table["figure"] == name) & table["panel"].str.startswith(panel)]
    return {
        str(series).lower(): {
            int(x): float(v) for x, v in zip(part["x"], part["value"], strict=True)
        }
        for series, part in rows.groupby("series")
    }


def _peak(table: pd.DataFrame) -> TextCheck:
    sigmoid = _curves(table, "Table 8", "18B")["sigmoid"]
    best = max(sigmoid.values())
    tied = [size for size, value in sigmoid.items() if best - value <= 2 * ROUNDING - 1e-9]
    return TextCheck(
        name="the best batch size of SigLiT",
        where="Sec. 4.1, Table 8",
        text="at 18B examples the model is best at 256k",
        numbers=f"{', '.join(_short(size) for size in sorted(tied))} all print {best:g}; one "
        "decimal cannot tell them apart",
        agrees=tied == [262_144],
    )


def _softmax_at_large(table: pd.DataFrame) -> TextCheck:
    ahead, within, level = [], [], 0
    panels = [("Table 8", p) for p in ("450M", "900M", "3B", "18B")]
    for name, panel in [*panels, ("Table 5", "3B"), ("Table 5", "9B")]:
        curves = _curves(table, name, panel)
        for size in sorted(set(curves["sigmoid"]) & set(curves["softmax"])):
            gap = curves["softmax"][size] - curves["sigmoid"][size]
            kind = "SigLiT" if name == "Table 8" else "SigLIP"
            said = f"{kind} {panel} at {_short(size)} by {gap:.1f}"
            if size < 98_304:
                continue
            if gap > 2 * ROUNDING + 1e-9:
                ahead.append(said)
            elif gap > 1e-9:
                within.append(said)
            else:
                level += 1
    return TextCheck(
        name="which loss leads at large batches",
        where="Sec. 4.1, 4.2, Tables 5 and 8",
        text="at large batches softmax is level with sigmoid or slightly behind it",
        numbers=f"softmax is ahead by more than rounding: {'; '.join(ahead)}; by no more: "
        f"{'; '.join(within)}. Level or behind in {level} other places from 98k on",
        agrees=not ahead,
    )


def _scratch_peak(table: pd.DataFrame) -> TextCheck:
    curves = _curves(table, "Table 5", "9B")
    best = {loss: max(curve, key=lambda size: curve[size]) for loss, curve in curves.items()}
    sigmoid, softmax = (curves[loss][best[loss]] for loss in ("sigmoid", "softmax"))
    return TextCheck(
        name="the best batch sizes of SigLIP",
        where="Sec. 4.2, Table 5",
        text="at 9B examples sigmoid is best at 32k, softmax at 98k and no better than it",
        numbers=f"sigmoid {sigmoid:g} at {_short(best['sigmoid'])}, softmax {softmax:g} at "
        f"{_short(best['softmax'])}; between the peaks {sigmoid - softmax:+.1f}",
        agrees=best == {"sigmoid": 32_768, "softmax": 98_304} and sigmoid >= softmax,
    )


def _few_chips(table: pd.DataFrame) -> TextCheck:
    rows = table[(table["figure"] == "Table 1") & table["x"].astype(str).str.contains("B/8")]
    printed = {
        str(row["panel"]).partition(" (")[0]: float(row["value"]) for _, row in rows.iterrows()
    }
    return TextCheck(
        name="SigLiT on four chips in a day",
        where="Table 1, Sec. 4.4",
        text="79.7",
        numbers="; ".join(f"{place}: {value:g}" for place, value in printed.items()),
        agrees=len(set(printed.values())) == 1,
    )


def _defaults(table: pd.DataFrame) -> TextCheck:
    """Table 6's default runs against the same cells in Tables 5 and 7."""
    sweep = table[(table["figure"] == "Table 6") & table["series"].str.startswith("default")]
    six = {int(x): float(v) for x, v in zip(sweep["x"], sweep["value"], strict=True)}
    five = _curves(table, "Table 5", "3B")["sigmoid"]
    seven = _table_7(table)["Sigmoid, ViT-Adafactor"]
    shared = sorted(set(six) & set(five))
    said = [f"{_short(size)}: Table 6 {six[size]:g}, Table 5 {five[size]:g}" for size in shared]
    return TextCheck(
        name="the default recipe at 3B examples",
        where="Appendix C, Tables 5, 6 and 7",
        text="the same recipe was trained for the same 3B examples in all three",
        numbers=f"{'; '.join(said)}; Table 7 at 32k: {seven[0]:g} +- {seven[1]:g}. The difference "
        "is many times the spread of five runs, and of opposite sign at 8k and 32k",
        agrees=all(abs(six[size] - five[size]) <= 2 * (seven[1] + ROUNDING) for size in shared),
    )


def _repeats(table: pd.DataFrame) -> TextCheck:
    sigmoid = _table_7(table)["Sigmoid, ViT-Adafactor"]
    softmax = _table_7(table)["Softmax, ViT-Adafactor"]
    gap = sigmoid[0] - softmax[0]
    # Standard deviations and means are printed to one decimal; the widest they may be.
    error = math.sqrt(((sigmoid[1] + ROUNDING) ** 2 + (softmax[1] + ROUNDING) ** 2) / 5)
    curves = _curves(table, "Table 5", "3B")
    once = curves["sigmoid"][32_768] - curves["softmax"][32_768]
    return TextCheck(
        name="sigmoid against softmax at 32k, five runs each",
        where="Appendix C, Tables 5 and 7",
        text="the gap has closed at 32k",
        numbers=f"five runs: {gap:+.1f} (standard error at most {error:.2f}); one run in Table 5: "
        f"{once:+.1f}. Single runs differ by as much as this gap",
        agrees=abs(once - gap) <= 2 * (math.hypot(sigmoid[1], softmax[1]) + 2 * ROUNDING),
    )


def _steps(table: pd.DataFrame) -> TextCheck:
    pairs = float(table.loc[table["metric"] == "negative pairs in one batch", "value"].iloc[0])
    size = 16_384
    return TextCheck(
        name="how long the runs with masked negatives are",
        where="Sec. 4.8",
        text="900 million steps at a batch of 16k",
        numbers=f"that would be {900e6 * size:.3g} examples; 900 million examples are "
        f"{900_000_000 // size:,} steps, as for the other runs of Table 8. (Its count of "
        f"negatives, {pairs / 1e6:.0f}M, fits: {size * (size - 1):,}.)",
        agrees=False,
    )


def _formula() -> TextCheck:
    """The loss at the start, where all similarities are near zero, by formula and by algorithm."""
    n, bias = 16_384, -10.0

    def loss(b: float) -> float:
        return math.log1p(math.exp(-b)) + (n - 1) * math.log1p(math.exp(b))

    return TextCheck(
        name="the sign of b in the formula of the loss",
        where="Sec. 3.2, Algorithm 1",
        text="the bias starts at -10 so that training starts near the prior",
        numbers=f"at b = -10, n = {n} and similarities of zero Algorithm 1 gives {loss(bias):.2f}, "
        f"the printed formula, which adds b after the minus sign, {loss(-bias):,.0f}: the "
        "formula has the sign of b wrong",
        agrees=False,
    )


def _languages(table: pd.DataFrame) -> TextCheck:
    rows = table[(table["figure"] == "Table 9") & table["panel"].str.contains("30B")]
    means = rows[rows["series"] == "lang=avg"].set_index(["panel", "x"])["value"]
    each = rows[rows["series"] != "lang=avg"].groupby(["panel", "x"])["value"].mean()
    worst = float((means - each).abs().max())
    return TextCheck(
        name="means over 36 languages",
        where="Tables 2 and 9",
        text="the mean of the 36 languages, at each batch size and in both directions",
        numbers=f"recomputed from the rows of Table 9: at most {worst:.3f} from what is printed",
        agrees=worst <= 2 * ROUNDING,
    )


def _two_versions(table: pd.DataFrame) -> TextCheck:
    """Table 9 (one decimal) against the same table of the third version (two decimals)."""
    values = {}
    for name in ("Table 9", "Table 6 of arXiv v3"):
        rows = table[(table["figure"] == name) & table["panel"].str.contains("30B")]
        direction = rows["panel"].str.split(",").str[0]
        keyed = rows.assign(direction=direction, x=rows["x"].astype(float))
        values[name] = keyed.set_index(["direction", "series", "x"])["value"].sort_index()
    new, old = values.values()
    worst = float((new - old).abs().max())
    return TextCheck(
        name="recall by language in two versions of the paper",
        where="Table 9, Table 6 of v3",
        text="the same runs, printed with one decimal and with two",
        numbers=f"{len(new)} numbers, at most {worst:.3f} apart",
        agrees=len(new) == len(old) and worst <= ROUNDING + 1e-9,
    )


def _table_7(table: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of five runs, by series."""
    rows = table[table["figure"] == "Table 7"]
    found = {}
    for series, part in rows.groupby("series"):
        mean = part.loc[part["metric"].str.contains("mean"), "value"].iloc[0]
        spread = part.loc[part["metric"].str.contains("std"), "value"].iloc[0]
        found[str(series)] = (float(mean), float(spread))
    return found


def _short(size: int) -> str:
    """As the paper writes batch sizes: 98k is 96 * 1024, 307k is 300 * 1024."""
    printed = {98_304: "98k", 307_200: "307k"}
    return printed.get(size, f"{size // 1024}k")
