"""What the lesson on why it works counts, on a run small enough to count by hand."""

import json
from dataclasses import asdict

import pytest

from rstar_nb.evolve.plateau import plateau, skeleton
from rstar_nb.evolve.settings import Settings
from rstar_nb.store import write_lines


def test_a_skeleton_is_a_program_without_its_numbers_and_comments():
    assert (
        skeleton(["# 12 apples\na = 12 + 3.5", "answer = a"])
        == skeleton(["a = 7 + 44", "# so\nanswer = a"])
        != skeleton(["a = 7 - 44", "answer = a"])
    )


def tree(i, solved, first, tokens=10, level=1):
    """A tree as in search.jsonl; `first` says whether its first rollout ended right."""
    return dict(
        problem_id=f"p{i}",
        solved=solved,
        solved_by="tree" if solved else None,
        tokens=tokens,
        level=level,
        subject="story",
        events=[
            dict(kind="select"),
            dict(kind="backup", path=[0, 1]),
            dict(kind="backup", path=[0, 2]),
        ],
        nodes=[
            dict(id=0),
            dict(id=1, **(dict(correct=True) if first else {})),
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
                tree(0, True, True),
                tree(1, False, False, 120),
                tree(2, True, False, 100),
                tree(3, True, True, 30),
            ],
            ["own = 1 + 2", "own = 3 + 4", "own = 5 * 6"],
        ),
        2: (
            [tree(5, True, True, level=2), tree(6, True, False, 90, 2)],
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
    own = {"base.source": "trained", "problems.kind": "gen"}
    settings = asdict(Settings().with_values(own))
    (tmp_path / "config.json").write_text(json.dumps(dict(settings=settings)))
    return tmp_path


def test_the_plateau_is_counted(run):
    counted = plateau(run)
    one, two = counted["rounds"]
    # In round 1 two first rollouts ended right; of the other two trees one was solved later.
    assert (one["first"], one["first_tokens"], one["wrong"]) == (2, 40, 2)
    assert (one["added"], one["added_tokens"], one["coverage"]["correct"]) == (1, 220, 3)
    assert (one["rows"], one["skeletons"], one["new_skeletons"]) == (3, 2, 2)
    assert (two["rows"], two["rows_with_a_new_one"], two["new_skeletons"]) == (3, 1, 1), (
        "a form of the first round, or of the worked examples, was counted as new"
    )
    assert (counted["never"]["correct"], counted["lost"]["correct"], counted["never"]["n"]) == (
        1,
        1,
        3,
    )
    assert counted["last"] == {"story/1": [1, 1], "story/2": [0, 1], "story/3": [0, 1]}


def test_without_worked_examples_only_forms_of_earlier_rounds_are_known(run):
    config = json.loads((run / "config.json").read_text())
    config["settings"]["base"]["source"] = "shipped"
    (run / "config.json").write_text(json.dumps(config))
    one, two = plateau(run)["rounds"]
    assert (one["rows"], one["skeletons"], one["new_skeletons"]) == (3, 2, 2)
    # "answer = 9 - 1" has the form of a worked example; beside a shipped base there is none.
    assert (two["rows"], two["rows_with_a_new_one"], two["new_skeletons"]) == (3, 2, 2)
