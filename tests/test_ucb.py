import math

import pytest

from rstar_nb.search.ucb import puct, sibling_priors, ucb1, uct


def test_formulas():
    assert ucb1(0.5, 3, 10) == pytest.approx(0.5 + math.sqrt(2 * math.log(10) / 3))
    assert uct(-0.25, 4, 9) == pytest.approx(-0.25 + 2 * math.sqrt(math.log(9) / 4))
    assert puct(0.1, 3, 16, prior=0.5) == pytest.approx(0.1 + 2 * 0.5 * 4 / 4)


def test_unvisited_comes_first_under_uct_but_not_under_puct():
    assert uct(-1, 0, 5) == math.inf > uct(1, 1, 5)
    assert puct(-1, 0, 5, prior=0.01) < puct(1, 1, 5, prior=0.5)


def test_the_bonus_falls_with_visits_and_rises_with_the_parents():
    for rule in (uct, puct):
        assert rule(0, 2, 50) > rule(0, 3, 50) and rule(0, 2, 51) > rule(0, 2, 50)


def test_priors():
    priors = sibling_priors([-1000.0, -1001.0, -1002.0])
    assert sum(priors) == pytest.approx(1) and priors[0] / priors[1] == pytest.approx(math.e)
    assert sibling_priors([]) == []
