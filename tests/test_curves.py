"""Every strategy on every round, each with what its models can do, and a tree that lost."""

from dataclasses import replace

import pytest
from standin import StandIn

import rstar_nb.measure.curves as curves
from rstar_nb.executor.pool import Executor
from rstar_nb.measure.curves import against_majority, lost_tree, strategy_curves, usable_strategies
from rstar_nb.measure.measurement import Measurement
from rstar_nb.problems.generator import generate
from rstar_nb.search.agent import Agent, SearchOptions
from rstar_nb.search.strategies import STRATEGIES, think
from rstar_nb.search.tree import tree_from_json
from rstar_nb.store import write_lines


class Policy(StandIn):
    def encode(self, question, steps=()):
        return " ".join([question, *steps]).split()


class Named:
    """A policy that could name its runners-up."""

    split = None


class Scores:
    def score(self, prefixes):
        return [0.0] * len(prefixes)


def test_the_base_is_measured_without_what_it_has_not(tmp_path, monkeypatch):
    run = tmp_path
    asked = {}

    def fake_measure_run(run, measurement, executor, rounds, out=None, say=None):
        (k,) = rounds
        asked[k] = list(measurement.strategies)
        folder = run / "measured" / str(k)
        folder.mkdir(parents=True)
        rows = [
            dict(problem_id="p", strategy=name, budget=9, correct=True)
            for name in measurement.strategies
        ]
        write_lines(folder / "rows.jsonl", rows)
        results = [dict(strategy=name, by_subject={}) for name in measurement.strategies]
        return dict(
            rounds=[dict(round=k, folder=str(folder), results=results, comparisons=[])],
        )

    monkeypatch.setattr(curves, "measure_run", fake_measure_run)
    monkeypatch.setattr(curves, "load_round", lambda run, k: (k, Named(), "ppm" if k else None))
    monkeypatch.setattr(curves, "lost_tree", lambda run, k, *rest: ("lost", k))
    measurement = Measurement([], ("all that a round can use",), (9,))
    result = strategy_curves(run, measurement, None, [0, 1, 2], run / "out")
    needs_none = [s.name for s in STRATEGIES.values() if s.judge is None]
    needs_orm = [s.name for s in STRATEGIES.values() if s.judge and s.judge.__name__ == "orm_of"]
    assert needs_none and needs_orm == ["best_of_n/orm"] and "beam/ppm" not in needs_none
    assert asked[0] == needs_none
    assert asked[1] == asked[2] == [name for name in STRATEGIES if name not in needs_orm]
    assert [r["round"] for r in result["rounds"]] == [0, 1, 2] and result["lost"] == ("lost", 2)
    assert not any("by_subject" in r for entry in result["rounds"] for r in entry["results"])
    against = result["rounds"][2]["against_majority"]
    assert against and {c["a"] for c in against} == {"majority"}
    assert not any(c["b"] == "greedy" for c in against)


def test_an_agent_with_every_reward_model_can_use_every_strategy():
    assert usable_strategies(Agent(Named(), None, "ppm", "orm")) == tuple(STRATEGIES)
    without = usable_strategies(Agent(None, None, "ppm", "orm"))
    assert without == tuple(n for n, s in STRATEGIES.items() if not s.runners_up)


def test_every_strategy_is_compared_with_the_vote_wherever_the_vote_stands():
    rows = [
        dict(problem_id=i, strategy=name, budget=9, correct=name == "b" or i == 0)
        for name in ("greedy", "b", "majority", "c")
        for i in range(4)
    ]
    compared = against_majority(rows)
    assert [(c["a"], c["b"], c["only_b"]) for c in compared] == [
        ("majority", "b", 3),
        ("majority", "c", 0),
    ]


@pytest.fixture(scope="module")
def executor():
    with Executor(workers=2, preload=()) as executor:
        yield executor


def test_a_lost_tree_is_one_that_the_vote_won(executor, monkeypatch):
    problems = generate(6, "test", seed=3, levels=[2])
    policy = Policy(problems, 0.3)
    monkeypatch.setattr(curves, "load_round", lambda run, k: (k, policy, Scores()))
    rows = [
        dict(problem_id=p.id, strategy=s, correct=s == "majority" and i in (2, 4))
        for i, p in enumerate(problems)
        for s in ("majority", "mcts/uct/vote")
    ]
    options = SearchOptions(candidates=4, max_depth=9, seed=5)
    measurement = Measurement(problems, (), (60,), options, wave=2)
    lost = lost_tree(None, 4, measurement, rows, executor)
    assert lost["problem"] in (problems[2].id, problems[4].id)
    assert (lost["lost"], lost["won"]) == (2, 0)
    tree = tree_from_json(lost["tree"])
    assert tree.question == lost["question"] and sum(lost["samples"]["programs"].values()) > 0
    all_right = [dict(r, correct=True) for r in rows]
    assert lost_tree(None, 4, measurement, all_right, executor) is None
    # The tree is the one that was measured: the same options, budget and models.
    (thought,) = think(
        "mcts/uct/vote",
        [(lost["problem"], lost["question"])],
        Agent(policy, executor, Scores()),
        60,
        options,
    )
    assert tree in thought.trees
    other_seed = replace(measurement, options=replace(options, seed=6))
    assert lost_tree(None, 4, other_seed, rows, executor)["tree"] != lost["tree"]
