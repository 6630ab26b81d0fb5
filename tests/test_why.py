"""What the lesson on why it works counts, on runs small enough to count by hand."""

import json

import pytest
import rstar_nb.evolve.analysis as why
from rstar_nb.evolve.analysis import curves
from standin import StandIn

from rstar_nb.evolve.differences import approaches, differences
from rstar_nb.evolve.plateau import plateau, skeleton
from rstar_nb.executor.pool import Executor
from rstar_nb.measure.curves import lost_tree
from rstar_nb.problems.generator import generate
from rstar_nb.search.strategies import STRATEGIES
from rstar_nb.search.tree import tree_from_json
from rstar_nb.store import write_lines


def arm(name, seed, policy, coverage=0.5, n=400):
    return dict(
        arm=name,
        seed=seed,
        n=n,
        policy=policy,
        coverage=[None, coverage],
        tokens=2500,
        cpu_minutes=1.5,
    )


def test_a_verdict_needs_every_seed_beyond_its_half_width_with_the_same_sign():
    rows = [
        arm("full", 0, [0.4, 0.7]),
        arm("full", 1, [0.4, 0.72]),
        arm("harmed", 0, [0.4, 0.5]),
        arm("harmed", 1, [0.4, 0.6]),
        arm("better", 0, [0.4, 0.9]),
        arm("better", 1, [0.4, 0.85]),
        arm("once", 0, [0.4, 0.5]),
        arm("once", 1, [0.4, 0.71]),
        arm("torn", 0, [0.4, 0.5]),
        arm("torn", 1, [0.4, 0.9]),
        arm("alone", 0, [0.4, 0.1]),
    ]
    found = {d["arm"]: d for d in differences(rows)}
    assert {name: d["verdict"] for name, d in found.items()} == dict(
        harmed="worse",
        better="better",
        once="not told apart",
        torn="not told apart",
        alone="one seed",
    )
    assert found["harmed"]["seeds"][0] == dict(
        seed=0, points=-20.0, half=6.6, coverage=0.0
    )  # 1.96 * sqrt(.5 * .5 / 400 + .7 * .3 / 400) = .0664
    assert "full" not in found


def test_a_skeleton_is_a_program_without_its_numbers_and_comments():
    assert (
        skeleton(["# 12 apples\na = 12 + 3.5", "answer = a"])
        == skeleton(["a = 7 + 44", "# so\nanswer = a"])
        != skeleton(["a = 7 - 44", "answer = a"])
    )


def tree(i, solved, grown, tokens=10, level=1, greedy=None):
    """A tree as in search.jsonl; `greedy` says whether its first program was right (default: whether it is solved)."""
    right = solved if greedy is None else greedy
    return dict(
        problem_id=f"p{i}",
        solved=solved,
        tokens=tokens,
        level=level,
        subject="story",
        events=[
            dict(kind="select" if grown else "expand"),
            dict(kind="execute", nodes=[1]),
            dict(kind="execute", nodes=[2]),
        ],
        nodes=[
            dict(id=0),
            dict(id=1, **(dict(correct=True) if right else {})),
            dict(id=2, **(dict(correct=True) if solved else {})),
        ],
    )


def row(i, program):
    return dict(problem_id=f"p{i}", question="?", steps=[program])


@pytest.fixture
def run(tmp_path):
    rounds = {
        1: (
            [
                tree(0, True, False),
                tree(1, False, False),
                tree(2, True, True, 100),
                tree(3, False, True, 120),
                tree(4, True, True, 80),
                tree(7, True, False, greedy=False),
            ],
            ["own = 1 + 2", "own = 3 + 4", "own = 5 * 6"],
        ),
        2: (
            [tree(5, True, False, level=2), tree(6, True, True, 90, 2)],
            ["own = 7 + 8", "answer = 9 - 1", "own = 7 % 8"],
        ),
    }
    rights = [
        [True, False, False],
        [False, True, False],
        [True, False, False],
    ]  # of three test problems, round by round
    for k, right in enumerate(rights):
        (tmp_path / f"round_{k}").mkdir()
        write_lines(
            tmp_path / f"round_{k}" / "eval.jsonl",
            [
                dict(
                    problem_id=f"t{i}",
                    level=i + 1,
                    subject="story",
                    strategy="greedy",
                    split="test",
                    correct=x,
                )
                for i, x in enumerate(right)
            ]
            + [
                dict(
                    problem_id="t0",
                    level=1,
                    subject="story",
                    strategy="mcts",
                    split="test",
                    correct=True,
                ),
                dict(
                    problem_id="o",
                    level=8,
                    subject="story",
                    strategy="greedy",
                    split="ood",
                    correct=False,
                ),
            ],
        )
    for k, (trees, programs) in rounds.items():
        write_lines(tmp_path / f"round_{k}" / "search.jsonl", trees)
        write_lines(
            tmp_path / f"round_{k}" / "selected.jsonl", [row(i, p) for i, p in enumerate(programs)]
        )
    write_lines(tmp_path / "metrics.jsonl", [dict(round=k) for k in range(3)])
    (tmp_path / "config.json").write_text(json.dumps(dict(settings=dict(trees=[2, 1], seed=0))))
    return tmp_path


def test_the_plateau_is_counted(run):
    found = plateau(run)
    one, two = found["rounds"]
    # Three trees were grown in round 1, two of them for problems that no cheap program solved; of those one was solved.
    assert (one["added"], one["wrong"], one["grown"]["n"], one["grown"]["tokens"]) == (1, 2, 3, 300)
    # Of the three without a tree, the greedy program solved one, and a change of it one more.
    assert (
        one["cheap"]["n"],
        one["cheap"]["solved"],
        one["greedy"],
        one["changed"],
        one["coverage"]["correct"],
    ) == (3, 2, 1, 1, 4)
    assert (one["rows"], one["skeletons"], one["new_skeletons"]) == (3, 2, 2)
    assert (two["rows"], two["rows_with_a_new_one"], two["new_skeletons"]) == (3, 1, 1), (
        "a form of the first round, or of the worked examples, was counted as new"
    )
    assert (found["never"]["correct"], found["lost"]["correct"], found["never"]["n"]) == (1, 1, 3)
    assert found["last"] == {"story/1": [1, 1], "story/2": [0, 1], "story/3": [0, 1]}


def test_the_base_is_measured_without_what_it_has_not(run, monkeypatch):
    asked = {}

    def fake(run, problems, names, budgets, executor, out, rounds, **more):
        asked[rounds[0]] = names
        folder = run / "measured" / str(rounds[0])
        folder.mkdir(parents=True)
        write_lines(
            folder / "rows.jsonl",
            [dict(problem_id="p", strategy=n, budget=9, correct=True) for n in names],
        )
        return dict(
            rounds=[
                dict(
                    round=rounds[0],
                    folder=str(folder),
                    results=[dict(strategy=n, by_subject={}) for n in names],
                    comparisons=[],
                )
            ]
        )

    monkeypatch.setattr(why, "evaluate_run", fake)
    monkeypatch.setattr(why, "load_round", lambda run, k: (k, None, None if k == 0 else "ppm"))
    monkeypatch.setattr(why, "lost_tree", lambda run, k, *a: ("lost", k))
    found = curves(run, [1, 2], None, run / "out", [9])
    assert asked[0] == [s.name for s in STRATEGIES.values() if not s.needs] and asked[1] == asked[
        2
    ] == [s.name for s in STRATEGIES.values() if s.needs != "orm"]
    assert (
        [r["round"] for r in found["rounds"]] == [0, 1, 2]
        and found["lost"] == ("lost", 2)
        and not any("by_subject" in r for e in found["rounds"] for r in e["results"])
    )
    against = found["rounds"][2]["against_majority"]
    assert {c["a"] for c in against} == {"majority"} and not any(
        c["b"] == "greedy" for c in against
    )


def test_a_lost_tree_is_one_that_the_vote_won(monkeypatch):
    problems = generate(6, "test", seed=3, levels=[2])

    class Policy(StandIn):
        def encode(self, question, steps=()):
            return " ".join([question, *steps]).split()

    class Scores:
        def score(self, prefixes):
            return [0.0] * len(prefixes)

    monkeypatch.setattr(why, "load_round", lambda run, k: (k, Policy(problems, 0.3), Scores()))
    rows = [
        dict(problem_id=p.id, strategy=s, correct=s == "majority" and i in (2, 4))
        for i, p in enumerate(problems)
        for s in ("majority", "mcts/uct/vote")
    ]
    with Executor(workers=2, preload=()) as executor:
        lost = lost_tree(None, 4, problems, rows, executor, 60)
        assert lost["problem"] in (problems[2].id, problems[4].id) and (
            lost["lost"],
            lost["won"],
        ) == (2, 0)
        tree = tree_from_json(lost["tree"])
        assert tree.question == lost["question"] and sum(lost["samples"]["programs"].values()) > 0
        assert (
            lost_tree(None, 4, problems, [dict(r, correct=True) for r in rows], executor, 60)
            is None
        )


def test_the_comparison_has_what_was_measured():
    rows = [arm("full", 0, [0.4, 0.7]), arm("gold", 0, [0.4, 0.9])]
    best = dict(strategy="majority", budget=900, accuracy=0.8, n=120, tokens=dict(generated=901.0))
    table = approaches(
        rows,
        dict(
            rounds=[
                dict(
                    round=0,
                    results=[dict(best, budget=100, accuracy=0.1), dict(best, accuracy=0.5)],
                ),
                dict(round=4, results=[best]),
            ]
        ),
    )
    text = {r["approach"]: "; ".join(r["measured"]) for r in table}
    assert text["self-evolution"] == "70.0 %, 2k tokens written, 1.5 CPU min"
    assert text["the base alone"] == "40.0 %" and text[
        "best of N samples of the base (vote)"
    ].startswith("50.0 % with 901")
