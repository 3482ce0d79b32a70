"""Rules by which settings are carried from one batch size to others, recognised and judged."""

import io
import math

import pandas as pd
import pytest

from analysis.claims import judge, parse_intervals, scaling_rules
from analysis.claims.made_cells import SOFTMAX, make_cells
from analysis.claims.made_cells import scaling_rules as made
from analysis.figures import EXTRA_FIGURES
from analysis.figures.base import Inputs
from analysis.select.fields import TOP1
from analysis.select.rate_rule import RATE
from analysis.select.scaling_rules import TUNED, transfers
from analysis.select.tried_rates import VALIDATION, Search, nearest_budget

LOST = {16: 0.5, 1024: 3.0}


def verdicts(rows):
    found = judge(make_cells(rows), claims=scaling_rules.CLAIMS)
    return {verdict.name: verdict for verdict in found}


def test_each_rule_is_recognised_from_the_settings_of_its_cells():
    by_loss = transfers(make_cells(made(LOST)), TOP1)
    assert list(by_loss) == ["sigmoid", "softmax"]
    for one in by_loss.values():
        assert one.at == 256
        for size in LOST:
            mine = one.cells[one.cells["batch_size"] == size]
            assert mine.groupby(mine["rule"].map(str)).size().to_dict() == dict.fromkeys(
                [
                    *("tuned rate", "one rate", "rate ~ root B", "rate ~ B", "rate ~ B^a"),
                    *("b2 half-life", "b2, other half-life", "decay time"),
                    "rate ~ root B, b2, decay",
                ],
                3,
            )


def test_seeds_that_compare_rules_are_no_search_though_they_run_several_rates():
    rows = [row | {VALIDATION: row.get(VALIDATION, row["quality"] - 4)} for row in made(LOST)]
    assert {name: one.at for name, one in transfers(make_cells(rows), TOP1).items()} == {
        "sigmoid": 256,
        "softmax": 256,
    }


def test_what_a_rule_loses_is_against_the_rate_tuned_there():
    for verdict in verdicts(made(LOST)).values():
        assert verdict.sentence.count("+0.50 [0.50, 0.50] at B = 16") == 2  # both losses
        assert verdict.sentence.count("+3.00 [3.00, 3.00] at B = 1024") == 2
        assert "within 3.0 points to batches 16 times smaller and 4 times larger" in (
            verdict.sentence
        )
        assert verdict.estimate == pytest.approx(3.0) and verdict.verdict == "contradicted"
        assert all(low <= value <= high for value, low, high in parse_intervals(verdict.sentence))


def test_a_rule_loses_nothing_where_it_is_the_tuned_rate_and_is_not_judged_if_it_always_is():
    """With the best rate in proportion to B, that rule's cells are those tuned there."""

    def best_in_proportion(*losses):
        rows = made(LOST)
        for row in rows:
            if row.get("seed") == 100 and row.get("loss.kind", "sigmoid") in losses:
                row[RATE] *= (row["batch_size"] / 256) ** 0.7
        return verdicts(rows)["rate in proportion to the batch"]

    one = best_in_proportion("sigmoid")
    assert one.sentence.count("+0.00 [0.00, 0.00] at B = ") == 2
    assert "+3.00 [3.00, 3.00] at B = 1024 (softmax)" in one.sentence
    assert best_in_proportion("sigmoid", "softmax").verdict == "no data"


def test_few_steps_decide_nothing_but_are_named():
    few = {4096: 9.0}
    rows = made({**LOST, **few})
    rows = [row | {"examples": 1e6} if row["batch_size"] == 4096 else row for row in rows]
    found = verdicts(rows)["one rate serves all batch sizes"]
    assert "4 times larger" in found.sentence and len(found.conditions) == 4
    assert "decides nothing, they lose +9.00 [9.00, 9.00] at B = 4096" in found.sentence


def test_a_rule_is_judged_where_all_others_are_or_not_at_all():
    linear = 1e-3 * 1024 / 256
    rows = [
        row
        for row in made(LOST)
        if not (row["batch_size"] == 1024 and math.isclose(row[RATE], linear))
    ]
    found = verdicts(rows)
    assert found.pop("rate in proportion to the batch").verdict == "no data"
    assert {verdict.verdict for verdict in found.values()} == {"contradicted"}


def test_an_optimum_at_the_edge_of_a_search_is_none():
    rows = made(LOST)
    top = max(row[RATE] for row in rows if row.get("seed") == 100 and row["batch_size"] == 1024)
    rows = [row for row in rows if not (row.get("seed") == 100 and row[RATE] == top)]
    cells = transfers(make_cells(rows), TOP1)["sigmoid"].cells
    assert set(cells["batch_size"]) == {16}
    assert TUNED in set(cells["rule"])
    softmax = [row for row in made(LOST) if row.get("loss.kind") == SOFTMAX["loss.kind"]]
    assert list(transfers(make_cells(softmax), TOP1)) == ["softmax"]


def test_the_figure_has_a_row_for_each_rule_and_draws_from_its_csv():
    plot = EXTRA_FIGURES["scaling_rules"]
    table = plot.data(Inputs(cells=make_cells(made(LOST))))
    assert set(table["panel"]) == {"B = 16, 625,000 steps", "B = 1k, 9,765 steps"}
    assert len(table) == 2 * 2 * 8 and table["id"].nunique() == 8
    assert table.groupby("panel")["value"].first().to_list() == pytest.approx([0.5, 3.0])
    fig = plot.draw(pd.read_csv(io.StringIO(table.to_csv(index=False))))
    assert [axes.has_data() for axes in fig.axes] == [True, True]
    assert not len(plot.data(Inputs()))


def test_of_searches_at_several_budgets_the_nearest_counts():
    short, long = (Search(examples=n, quality={1e-3: 40.0}) for n in (100, 1600))
    by_budget = {100: short, 1600: long}
    assert [nearest_budget(by_budget, n) for n in (10, 399, 400, 1e5)] == [short, short, long, long]


def test_a_rate_between_two_that_were_tried_is_no_better_than_the_line_between_them():
    search = Search(examples=1, quality={1e-3: 40.0, 2e-3: 44.0, 4e-3: 42.0})
    assert [search.shortfall(rate) for rate in (1e-3, 2e-3, 4e-3)] == [4.0, 0.0, 2.0]
    assert search.shortfall(2e-3 * math.sqrt(2)) == pytest.approx(1.0)
    assert search.shortfall(1e-4) == 4.0 and not search.at_edge
