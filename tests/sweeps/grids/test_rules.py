"""Rules by which a setting follows the batch size."""

from __future__ import annotations

import pytest

from study.config import Adam, Cell
from sweeps.grids.rules import PowerRule, TableRule, marin_b2


def test_a_power_rule_is_its_value_at_its_batch_size_and_ends_at_the_largest():
    rule = PowerRule(value=0.01, at=256, exponent=0.5, largest=4096)
    assert [rule(b) for b in (64, 256, 1024, 4096, 65_536)] == [0.005, 0.01, 0.02, 0.04, 0.04]
    assert PowerRule(value=0.01, at=256, exponent=1)(65_536) == 2.56
    assert PowerRule(value=0.01, at=256, exponent=0)(7) == 0.01


def test_a_table_is_itself_at_its_batch_sizes_a_power_between_them_and_ends_with_them():
    rule = TableRule(values={16: 2.5e-3, 64: 5e-3, 256: 5e-3})
    assert [rule(b) for b in (4, 16, 64, 256, 4096)] == [2.5e-3, 2.5e-3, 5e-3, 5e-3, 5e-3]
    assert rule(32) == 3.54e-3 and rule(128) == 5e-3


def test_marins_b2_is_a_half_life_within_bounds():
    assert [marin_b2(b) for b in (1, 65_536)] == [0.9999, 0.95]
    cell = Cell(batch_size=512, optimizer=Adam(b2_half_life_examples=22_169.6))
    assert marin_b2(512) == pytest.approx(cell.b2, abs=1e-6)
