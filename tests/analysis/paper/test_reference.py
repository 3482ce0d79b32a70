"""The paper's numbers are read as they are printed."""

import pytest

from analysis.errors import AnalysisError
from analysis.paper import fig_2


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


def test_another_file_can_be_given_and_a_missing_one_is_one_line(tmp_path):
    (tmp_path / "numbers.csv").write_text(
        "figure,panel,series,x_name,x,metric,value,unit,provenance\n"
        "Fig. 2,left,Sigmoid,batch_size,16,top1,50.0,%,table\n"
    )
    assert value(fig_2("cached", path=tmp_path / "numbers.csv"), "sigmoid", 16) == 50.0
    with pytest.raises(AnalysisError, match="cannot find"):
        fig_2("cached", path=tmp_path / "nowhere.csv")
