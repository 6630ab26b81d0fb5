import random

import pytest

from rstar_nb.measure.payoff import (
    alone,
    noticed,
    payoff_rows,
    predicted,
    searched,
    steps_by_samples,
    steps_by_search,
)
from rstar_nb.show.payoff import plot_payoff


def simulated(p, length, failing, judge, rng):
    """(did all kept steps turn out right, steps written): noticed wrong ones are drawn again."""
    written = 0
    right = True
    for _ in range(length):
        while True:
            written += 1
            if rng.random() < p:
                break
            if rng.random() >= failing and rng.random() >= judge:
                right = False
                break
    return right, written


@pytest.mark.parametrize("judge", [0.0, 0.6])
def test_the_formulas_are_what_a_simulation_gives(judge):
    rng = random.Random(1)
    p, length, failing = 0.7, 3, 0.8
    runs = [simulated(p, length, failing, judge, rng) for _ in range(20_000)]
    share = sum(right for right, _ in runs) / len(runs)
    assert abs(share - searched(p, length, failing, judge)) < 0.015
    steps = sum(written for _, written in runs) / len(runs)
    assert abs(steps - steps_by_search(p, length, noticed(failing, judge))) < 0.05


def test_nothing_noticed_is_the_policy_alone_and_all_noticed_is_certainty():
    for p in (0.0, 0.3, 1.0):
        for length in (1, 5):
            assert searched(p, length, 0) == pytest.approx(alone(p, length))
    assert searched(0.3, 5, 1) == searched(0.3, 5, 0, judge=1) == 1
    assert searched(0.0, 2, 1) == 0
    assert steps_by_samples(0.5, 3) == 3 * 8 and steps_by_search(0.5, 3, 0) == 3


def rows_of(problem_id, level, greedy, searches):
    """Rows of one problem: (correct, programs) alone, (correct, found) of both searches."""
    common = dict(problem_id=problem_id, level=level)
    yield dict(common, strategy="greedy", correct=greedy[0], programs=greedy[1], found=greedy[0])
    for name, (correct, found) in zip(("no_ppm", "vote"), searches, strict=True):
        strategy = f"second_thoughts/{name}"
        yield dict(common, strategy=strategy, correct=correct, programs=1, found=found)
    yield dict(common, strategy="majority", correct=True, programs=9, found=True)


def test_counts_of_worlds_and_steps():
    rows = [
        *rows_of("mix-0-test-3-6", 3, (False, 0), [(False, True), (True, True)]),  # a story
        *rows_of("mix-0-test-3-16", 3, (False, 1), [(True, True), (True, True)]),  # another
        *rows_of("mix-0-test-3-0", 3, (True, 1), [(True, True), (False, True)]),  # a chain
    ]
    story = dict(world="stories", steps=3, n=2, alone=0, failed=1, without_ppm=1, with_ppm=2)
    chain = dict(world="chains", steps=3, n=1, alone=1, failed=0, without_ppm=1, with_ppm=0)
    assert payoff_rows(rows) == [dict(chain, found=1), dict(story, found=2)]


def test_predictions_where_there_is_little_to_count():
    cell = dict(n=4, steps=2, alone=4, failed=0)
    assert predicted(cell) == 1
    assert predicted(cell | dict(alone=0, failed=4)) == 0
    assert predicted(cell | dict(alone=1, failed=0)) == pytest.approx(0.25)
    assert predicted(cell | dict(alone=1, failed=3)) == 1


def test_a_picture_has_a_panel_for_each_world_and_says_its_numbers():
    counts = dict(steps=1, n=4, alone=1, failed=2, without_ppm=2, with_ppm=3, found=4)
    picture = plot_payoff([dict(counts, world="chains"), dict(counts, world="stories")])
    assert "stories: alone 25 %, search without PPM 50 %, search with PPM 75 %" in str(picture)
