"""How often claims are decided wrongly in simulated studies."""

import pytest

from analysis.claims import CLAIMS
from analysis.claims.null_studies import SCENARIOS, count_errors, count_studies, simulate
from analysis.claims.scenario import BOTH
from analysis.claims.truths import DECAY, PRIOR


def test_every_claim_can_fail_and_has_an_edge_for_either_wrong_verdict():
    found = simulate(SCENARIOS, draws=2)
    rates = count_errors(SCENARIOS, found)
    assert set(rates.index) == {claim.name for claim in CLAIMS}
    assert rates["contradicted where false"].gt(0).all(), rates
    assert rates.notna().all(axis=None)


def test_wrong_verdicts_are_rare_at_the_edges():
    """100 draws at a rate of 2.5 %: more than 8 wrong ones in one of a thousand cases."""
    cheap = [s for s in SCENARIOS if {DECAY, PRIOR} & set(s.wrong)]
    found = simulate(cheap, draws=100)
    rates = count_errors(cheap, found)[[f"wrongly {kind}" for kind in BOTH]]
    assert rates.notna().all(axis=None) and rates.le(8 / 100).all(axis=None), rates
    # The edge of each claim with most wrong verdicts: none is frequent in all studies together.
    alone, adjusted = count_studies(cheap, found)
    assert adjusted <= alone and adjusted <= 2 * 8 / 100


@pytest.mark.parametrize("verdict", BOTH)
def test_a_wrong_verdict_is_counted(verdict):
    scenario = next(s for s in SCENARIOS if s.false == (DECAY,))
    wrong = type(scenario)(truth="x", rows=scenario.rows, wrong={DECAY: (verdict,)})
    rates = count_errors([wrong], simulate([wrong], draws=3))
    assert rates.loc[DECAY, f"wrongly {verdict}"] == (verdict == "contradicted")
