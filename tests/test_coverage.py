"""Tokens until a problem is solved, and the curves that follow from them."""

from types import SimpleNamespace

import pytest

from rstar_nb.evolve.base import shipped_base
from rstar_nb.executor.pool import Executor
from rstar_nb.executor.result import Result
from rstar_nb.measure.coverage import (
    coverage_curve,
    coverage_of_ways,
    tokens_for,
    until_solved,
    within,
    wrong_alone,
)
from rstar_nb.policy.steps import Candidate
from rstar_nb.problems.generator import generate
from rstar_nb.search.agent import Agent
from rstar_nb.show.coverage import common_share, plot_coverage_tokens, ratio_text

OUTCOMES = [(40, True), (90, True), (260, True), (1000, False)]


def ran(answer, status="ok"):
    return Result(status, answer, "", None if status == "ok" else "NameError", 0.0)


def program(n_tokens, begun=0):
    return Candidate("answer = 1", 0.0, tuple(range(n_tokens)), True, begun)


def test_the_first_right_program_ends_the_count():
    problem = SimpleNamespace(answer="7")
    drawn = [program(10), program(30, begun=25), program(8), program(50)]
    results = [ran(3), ran(None, "error"), ran(7), ran(7)]
    assert until_solved(problem, drawn, results) == (10 + 5 + 8, True)
    assert until_solved(problem, drawn[:2], results[:2]) == (15, False)
    assert until_solved(problem, [], []) == (0, False)


def test_a_curve_counts_what_a_limit_allows():
    assert coverage_curve(OUTCOMES, [30, 90, 1000]) == [
        (30.0, 0.0),
        (77.5, 0.5),
        ((40 + 90 + 260 + 1000) / 4, 0.75),
    ]
    assert within(OUTCOMES, 100) == [(40, True), (90, True), (100, False), (100, False)]


def test_tokens_for_a_share():
    assert tokens_for(OUTCOMES, 0.5) == 77.5
    assert tokens_for(OUTCOMES, 0.51) == (40 + 90 + 260 + 260) / 4
    assert tokens_for(OUTCOMES, 1.0) is None and tokens_for(OUTCOMES, 0.0) == 0.0


def test_ways_are_compared_where_both_arrive():
    slow = [(400, True), (800, True), (1000, False), (1000, False)]
    ways = {"second thoughts": OUTCOMES, "samples": slow, "none": [(9, False)] * 4}
    assert common_share(OUTCOMES, slow) == 0.5
    assert ratio_text(ways).endswith(f"samples {700 / 77.5:.1f} (for 50 % solved)")
    record = dict(budget=300, rounds=[dict(round=0, n=4, ways=ways)])
    assert "samples" not in plot_coverage_tokens(record).text, "what a budget forbids was counted"


@pytest.mark.parametrize(
    "ppm", [None, SimpleNamespace(score=lambda prefixes: [0.0] * len(prefixes))]
)
def test_every_way_is_given_the_problems_that_are_wrong_alone(ppm):
    drawn = generate(16, "train", seed=9, levels=[2, 3])
    with Executor(workers=2, preload=()) as executor:
        agent = Agent(shipped_base(), executor, ppm)
        problems = wrong_alone(drawn, agent)
        assert 0 < len(problems) < len(drawn)
        outcomes = coverage_of_ways(problems, agent, budget=60)
    assert ("second thoughts, PPM" in outcomes) == (ppm is not None)
    for name, rows in outcomes.items():
        assert len(rows) == len(problems), name
        assert all(tokens > 0 for tokens, _ in rows), name
