"""The paper's numbers are read as they are printed."""

import pytest

from analysis.errors import AnalysisError
from analysis.paper import fig_2, reference


def value(table, loss, size):
    return table[(table["loss.kind"] == loss) & (table["batch_size"] == size)]["value"].item()


def test_fig_2_left_is_the_18b_part_of_table_8():
    table = fig_2("cached")
    assert value(table, "sigmoid", 2048) == 82.2
    assert value(table, "softmax", 2048) == 81.2
    assert value(table, "sigmoid", 2**20) == 84.7
    assert table["loss.kind"].value_counts().to_dict() == {"sigmoid": 9, "softmax": 8}


def test_fig_2_middle_is_the_9b_part_of_table_5():
    table = fig_2("vit")
    assert value(table, "sigmoid", 4096) == 68.4
    assert value(table, "softmax", 307_200) == 72.6
    assert len(table) == 12


def test_table_9_has_the_printed_means_and_the_values_of_an_earlier_version():
    """Numbers copied by hand: rows against their means, one decimal against two."""
    rows = reference("Table 9")
    rows = rows[rows["panel"].str.contains("30B")]
    means = rows[rows["series"] == "lang=avg"].set_index(["panel", "x"])["value"]
    each = rows[rows["series"] != "lang=avg"].groupby(["panel", "x"])["value"].mean()
    assert (means - each).abs().max() <= 0.1 and len(means) == len(each) == 10
    earlier = reference("Table 6 of arXiv v3").assign(x=lambda row: row["x"].astype(float))
    earlier = earlier[earlier["panel"].str.contains("30B")]
    both = rows.assign(x=rows["x"].astype(float)).merge(
        earlier, on=["series", "x"], suffixes=("", "_earlier")
    )
    direction = both["panel"].str.partition(",")[0]
    both = both[direction == both["panel_earlier"].str.partition(",")[0]]
    assert len(both) == len(rows) == len(earlier) == 370
    assert (both["value"] - both["value_earlier"]).abs().max() <= 0.05 + 1e-9


def test_another_file_can_be_given_and_a_missing_one_is_one_line(tmp_path):
    (tmp_path / "numbers.csv").write_text(
        "figure,panel,series,x_name,x,metric,value,unit,provenance\n"
        "Fig. 2,left,Sigmoid,batch_size,16,top1,50.0,%,table\n"
    )
    assert value(fig_2("cached", path=tmp_path / "numbers.csv"), "sigmoid", 16) == 50.0
    with pytest.raises(AnalysisError, match="cannot find"):
        fig_2("cached", path=tmp_path / "nowhere.csv")
