"""ORM, PQM and PPM from the same trees: what each learns from, what is held out of all, and what is compared."""

import json

import pytest
from standin import StandIn

import rstar_nb.measure.kinds as prm_kinds
from rstar_nb.executor.pool import Executor
from rstar_nb.measure.kinds import (
    KINDS,
    measure_kinds,
    pair_rows,
    pair_table,
    train_kind,
    trees_until,
)
from rstar_nb.policy.policy import Policy
from rstar_nb.policy.steps import STEP_END
from rstar_nb.policy.tiny import tiny_model, train_tokenizer
from rstar_nb.problems.generator import generate, gold_program
from rstar_nb.reward.model import RewardModel
from rstar_nb.reward.pairs import held_out
from rstar_nb.search.mcts import search
from rstar_nb.search.tree import Tree, trajectories, tree_to_json
from rstar_nb.store import publish, write_lines

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
        StandIn(PROBLEMS),
        executor,
        rollouts=6,
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
    for k, some in ((1, trees[:20]), (2, trees[20:])):
        (run / f"round_{k}").mkdir()
        write_lines(
            run / f"round_{k}" / "search.jsonl",
            [dict(tree_to_json(t), level=1, subject="s", solved=False) for t in some],
        )
        write_lines(run / f"round_{k}" / "pairs.jsonl", pair_rows(some))
        publish(run / f"round_{k}" / "policy", policy.save)
    (run / "config.json").write_text(
        json.dumps(dict(settings=dict(ppm_steps=[2], pair_batch=4, ppm_lr=1e-3, ppm_reads="last")))
    )
    return run


def test_each_kind_learns_from_what_it_is_named_after(trees):
    rows = {kind: rows_of(trees) for kind, (rows_of, _) in KINDS.items()}
    ends = [x for t in trees for x in trajectories(t)]
    assert {r["target"] for r in rows["orm"]} == {1.0, -1.0} and len(rows["orm"]) >= len(ends)
    assert any(-1 < r["target"] < 1 for r in rows["pqm"]) and len(rows["pqm"]) > len(rows["orm"])
    assert {p["kind"] for p in rows["ppm"]} == {"step", "final"} and all(
        p["better"] != p["worse"] for p in rows["ppm"]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_held_out_problems_teach_no_kind(kind, trees, policy, monkeypatch):
    rows_of, _ = KINDS[kind]
    seen, fitted = [], []
    monkeypatch.setitem(
        KINDS,
        kind,
        (
            lambda some: (seen.extend(t.problem_id for t in some), rows_of(some))[1],
            lambda prm, rows, *a, **k: fitted.append(rows),
        ),
    )
    _, n = train_kind(kind, policy, trees, 1)
    assert any(held_out(t.problem_id) for t in trees), "this set of problems tests nothing"
    assert (
        sorted(seen) == sorted(t.problem_id for t in trees if not held_out(t.problem_id))
        and n == len(fitted[0]) > 0
    )


def test_trees_that_teach_nothing_are_refused(policy):
    with pytest.raises(ValueError, match="nothing to train a ppm on"):
        train_kind("ppm", policy, [Tree("p", "?")], 1)
    with pytest.raises(ValueError, match="choose from orm, pqm, ppm"):
        train_kind("pmp", policy, [], 1)


def test_every_kind_learns_what_it_was_shown(trees, policy):
    some = [t for t in trees if not held_out(t.problem_id)]
    pairs = pair_rows(some)
    right = {}
    for kind in KINDS:
        prm, _ = train_kind(kind, policy, some, 60, 16, 3e-3)
        right[kind] = sum(r["right"] for r in pair_table({kind: prm}, pairs)) / len(pairs)
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

    def noted(kind, policy, trees, steps, batch, *more):
        calls.append((kind, len(trees), steps, batch, *more))
        return train_kind(kind, policy, trees, steps, batch, *more)

    monkeypatch.setattr(prm_kinds, "train_kind", noted)
    found = measure_kinds(
        run,
        tmp_path,
        TEST,
        executor,
        budgets=[30],
        strategies=("majority", "best_of_n/ppm_last"),
        wave=6,
    )
    assert [(c[0], c[3]) for c in calls] == [("orm", 8), ("pqm", 8), ("ppm", 4)], (
        "a batch of pairs has two programs for each pair"
    )
    assert len({(c[1], c[2], *c[4:]) for c in calls}) == 1, "the kinds were not trained alike"
    assert [r["strategy"] for r in found["accuracy"]] == [
        "majority",
        "orm best_of_n/ppm_last",
        "pqm best_of_n/ppm_last",
        "ppm best_of_n/ppm_last",
    ]
    assert len({r["found"] for r in found["accuracy"]}) == 1, "they did not judge the same samples"
    assert [c["a"] for c in found["comparisons"]] == ["majority"] * 3
    assert {r["model"] for r in found["pairs"]} == set(KINDS) and json.loads(
        (tmp_path / "seed_0" / "kinds.json").read_text()
    )["n"] == len(TEST)
    monkeypatch.setattr(
        prm_kinds, "train_kind", lambda *a, **k: pytest.fail("a kind was trained again")
    )
    assert (
        measure_kinds(
            run,
            tmp_path,
            TEST,
            executor,
            budgets=[30],
            strategies=("majority", "best_of_n/ppm_last"),
            wave=6,
        )["accuracy"]
        == found["accuracy"]
    )
    assert all(RewardModel.load(tmp_path / "seed_0" / kind) for kind in KINDS)
