"""ORM, PQM and PPM from the same trees: what each learns from, what no kind sees."""

import json
from dataclasses import replace

import pytest
from standin import StandIn

import rstar_nb.measure.kinds as kinds
from rstar_nb.executor.pool import Executor
from rstar_nb.measure.kinds import (
    KINDS,
    Fit,
    measure_kinds,
    pair_rows,
    pair_table,
    train_kind,
    trees_until,
)
from rstar_nb.measure.measurement import Measurement
from rstar_nb.policy.policy import Policy
from rstar_nb.policy.steps import STEP_END
from rstar_nb.policy.tiny import tiny_model, train_tokenizer
from rstar_nb.problems.generator import generate, gold_program
from rstar_nb.reward.heads import LastToken
from rstar_nb.reward.model import RewardModel
from rstar_nb.reward.pairs import held_out
from rstar_nb.search.agent import Agent, SearchOptions
from rstar_nb.search.mcts import search
from rstar_nb.search.tree import Tree, trajectories, tree_to_json
from rstar_nb.store import StoreError, publish, write_lines

PROBLEMS = generate(40, "train", seed=7, levels=[1, 2])
TEST = generate(6, "test", seed=7, levels=[1])


@pytest.fixture(scope="module")
def executor():
    with Executor(workers=2, preload=()) as executor:
        yield executor


@pytest.fixture(scope="module")
def trees(executor):
    return search(
        [Tree(p.id, p.question) for p in PROBLEMS],
        Agent(StandIn(PROBLEMS), executor),
        SearchOptions(rollouts=6),
        references={p.id: p.answer for p in PROBLEMS},
    )


@pytest.fixture(scope="module")
def policy():
    tokenizer = train_tokenizer(
        [
            p.question + STEP_END + STEP_END.join(gold_program(p.id)) + STEP_END
            for p in PROBLEMS + TEST
        ]
    )
    return Policy(
        tiny_model(
            len(tokenizer),
            hidden_size=32,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=64,
        ),
        tokenizer,
    )


@pytest.fixture(scope="module")
def run(trees, policy, tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    for k, part in ((1, trees[:20]), (2, trees[20:])):
        (run / f"round_{k}").mkdir()
        write_lines(
            run / f"round_{k}" / "search.jsonl",
            [dict(tree_to_json(t), level=1, subject="s", solved=False) for t in part],
        )
        write_lines(run / f"round_{k}" / "pairs.jsonl", pair_rows(part))
        publish(run / f"round_{k}" / "policy", policy.save)
    return run


def test_each_kind_learns_from_what_it_is_named_after(trees):
    rows = {name: kind.rows(trees) for name, kind in KINDS.items()}
    ends = [x for t in trees for x in trajectories(t)]
    assert {r["target"] for r in rows["orm"]} == {1.0, -1.0} and len(rows["orm"]) >= len(ends)
    assert any(-1 < r["target"] < 1 for r in rows["pqm"]) and len(rows["pqm"]) > len(rows["orm"])
    assert {p["kind"] for p in rows["ppm"]} == {"step", "final"} and all(
        p["better"] != p["worse"] for p in rows["ppm"]
    )


@pytest.mark.parametrize("name", KINDS)
def test_held_out_problems_teach_no_kind(name, trees, policy, monkeypatch):
    kind = KINDS[name]
    seen, fitted = [], []

    def rows(teaching):
        seen.extend(t.problem_id for t in teaching)
        return kind.rows(teaching)

    def fit(model, rows, *rest):
        fitted.append(rows)

    monkeypatch.setitem(KINDS, name, replace(kind, rows=rows, fit=fit))
    _, n = train_kind(name, policy, trees, Fit(1))
    assert any(held_out(t.problem_id) for t in trees), "this set of problems tests nothing"
    assert sorted(seen) == sorted(t.problem_id for t in trees if not held_out(t.problem_id))
    assert n == len(fitted[0]) > 0


@pytest.mark.parametrize("name, programs", [("orm", 8), ("pqm", 8), ("ppm", 4)])
def test_a_batch_of_pairs_has_two_programs_for_each_pair(
    name, programs, trees, policy, monkeypatch
):
    asked = []

    def fit(model, rows, num_steps, batch_size, lr, seed):
        asked.append((num_steps, batch_size, lr))

    monkeypatch.setitem(KINDS, name, replace(KINDS[name], fit=fit))
    train_kind(name, policy, trees, Fit(3, 4, 1e-3))
    assert asked == [(3, programs, 1e-3)]


def test_trees_that_teach_nothing_are_refused(policy):
    with pytest.raises(ValueError, match="nothing to train a ppm on"):
        train_kind("ppm", policy, [Tree("p", "?")], Fit(1))
    with pytest.raises(ValueError, match="choose from orm, pqm, ppm"):
        train_kind("pmp", policy, [], Fit(1))


def test_every_kind_learns_what_it_was_shown(trees, policy):
    teaching = [t for t in trees if not held_out(t.problem_id)]
    pairs = pair_rows(teaching)
    right = {}
    for name, kind in KINDS.items():
        fit = Fit(60, 16 // kind.batch_factor, 3e-3)
        model, _ = train_kind(name, policy, teaching, fit)
        right[name] = sum(r["right"] for r in pair_table({name: model}, pairs)) / len(pairs)
    assert all(x > 0.7 for x in right.values()), right


def test_the_pair_table_counts_by_kind_of_pair():
    pairs = [dict(problem_id="p", question="q", better=["a"], worse=["b"], kind="step")] * 3 + [
        dict(problem_id="p", question="q", better=["b"], worse=["a"], kind="final")
    ]

    class Alphabet:
        def score(self, prefixes):
            return [-ord(s[-1]) / 200 for _, s in prefixes]

    assert [
        (r["model"], r["pairs"], r["right"], r["n"]) for r in pair_table(dict(it=Alphabet()), pairs)
    ] == [("it", "final", 0, 1), ("it", "step", 3, 3)]


def test_trees_of_all_rounds_up_to_one(run, trees):
    assert [t.problem_id for t in trees_until(run, 1)] == [t.problem_id for t in trees[:20]]
    assert trees_until(run, 2) == trees


def test_all_three_are_trained_alike_and_compared_on_the_same_answers(
    run, executor, tmp_path, monkeypatch
):
    calls = []

    def noted(name, policy, trees, fit, seed):
        calls.append((name, len(trees), fit, seed))
        return train_kind(name, policy, trees, fit, seed)

    monkeypatch.setattr(kinds, "train_kind", noted)
    fit = Fit(2, 4, 1e-3, LastToken)
    options = SearchOptions(candidates=4, max_depth=9)
    measurement = Measurement(TEST, ("majority", "best_of_n/ppm_last"), (30,), options, wave=6)
    result = measure_kinds(run, tmp_path, measurement, executor, fit)
    assert calls == [(name, len(PROBLEMS), fit, 0) for name in ("orm", "pqm", "ppm")]
    assert {name: about["steps"] for name, about in result["trained"].items()} == dict(
        orm=2, pqm=2, ppm=2
    )
    assert [r["strategy"] for r in result["accuracy"]] == [
        "majority",
        "orm best_of_n/ppm_last",
        "pqm best_of_n/ppm_last",
        "ppm best_of_n/ppm_last",
    ]
    assert len({r["found"] for r in result["accuracy"]}) == 1, "they judged other samples"
    assert [c["a"] for c in result["comparisons"]] == ["majority"] * 3
    written = json.loads((tmp_path / "seed_0" / "kinds.json").read_text())
    assert {r["model"] for r in result["pairs"]} == set(KINDS) and written["n"] == len(TEST)
    monkeypatch.setattr(kinds, "train_kind", lambda *args: pytest.fail("a kind was trained again"))
    again = measure_kinds(run, tmp_path, measurement, executor, fit)
    assert again["accuracy"] == result["accuracy"]
    with pytest.raises(StoreError, match="trained from other weights or otherwise"):
        measure_kinds(run, tmp_path, measurement, executor, replace(fit, num_steps=3))
    assert all(RewardModel.load(tmp_path / "seed_0" / name) for name in KINDS)
