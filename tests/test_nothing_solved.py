"""A round that solved nothing says what it saw, before anything is trained."""

from io import StringIO
from types import SimpleNamespace

import pytest
from rich.console import Console
from standin import StandIn

from rstar_nb.evolve.nothing_solved import check_solved, kind_of, what_was_seen
from rstar_nb.evolve.phases import sft_phase
from rstar_nb.evolve.run import Run
from rstar_nb.evolve.searching import search_phase
from rstar_nb.evolve.settings import Settings
from rstar_nb.executor.pool import Executor
from rstar_nb.policy.steps import Candidate
from rstar_nb.problems.generator import generate
from rstar_nb.search.agent import Agent
from rstar_nb.search.tree import Tree
from rstar_nb.store import read_lines, write_lines

PROBLEMS = generate(6, "train", seed=3)
SETTINGS = Settings().with_values(
    {
        "search.rollouts": (2,),
        "search.expansion": "sampled_steps",
        "search.candidates": (2,),
        "search.wave": 6,
    }
)


class Says:
    """A policy that proposes the same program to every question, step by step or whole."""

    def __init__(self, *steps, finished=True):
        self.steps, self.finished = steps, finished

    def propose(self, prefixes, k, seeds, temperature=1.0, top_k=0, whole=False):
        return [[self._one(steps, whole)] * k for _, steps in prefixes]

    def _one(self, steps, whole):
        text = (
            "\n\n".join(self.steps) if whole else self.steps[min(len(steps), len(self.steps) - 1)]
        )
        return Candidate(text if self.finished else "", -1.0, (1, 2), self.finished)


@pytest.fixture(scope="module")
def executor():
    with Executor(workers=1, preload=()) as executor:
        yield executor


def searched(folder, executor, policy, problems=PROBLEMS, worked_examples=()):
    """A run whose first round has been searched by `policy`."""
    models = SimpleNamespace(
        seed_rows=lambda settings, k: list(worked_examples), load_policy=lambda folder: policy
    )
    run = Run(folder, SETTINGS, executor, models, quiet=True)
    run.console = Console(file=StringIO(), width=1000)
    search_phase(run, 1, problems, Agent(policy, executor))
    return run


def said(run):
    """What a run printed."""
    return run.console.file.getvalue()


@pytest.mark.parametrize(
    "policy, says",
    [
        (Says("", finished=False), "the policy wrote no step to its end"),
        (Says("The answer is 12."), "no program ran, of .*; most often SyntaxError: invalid"),
        (Says("x = 1", "y = x + z"), "no program ran, .*NameError: name 'z' is not defined"),
        (Says("x = 1", "print(x)"), "programs ran and none ended.*`answer`.*'print\\(x\\)'"),
        (Says("def f():\n    answer = 1"), "programs ran and none ended"),
        (Says("if 1 > 2:\n    answer = 1"), "programs ran and none ended"),
        (Says("answer = [1, 2]"), r"all \d+ answers are of another kind.*\[1, 2\] \(a row\) for '"),
        (Says("answer = 'twelve'"), r"all \d+ answers .*'twelve' \(a text\) for '\d+' \(a number"),
        (Says("answer = -77777"), r"\d+ programs ended and none was right.* -77777 for '\d+' and"),
    ],
)
def test_what_a_search_saw_that_solved_nothing(tmp_path, executor, policy, says):
    run = searched(tmp_path, executor, policy)
    with pytest.raises(ValueError, match=f"search of round 1 solved none of 6 problems: .*{says}"):
        check_solved(run, 1, PROBLEMS)
    assert not said(run)


def test_it_is_one_line_of_a_bearable_length(tmp_path, executor):
    run = searched(tmp_path, executor, Says("x = 1", "y = '" + "many words " * 90 + "'\nprint(y)"))
    with pytest.raises(ValueError) as e:
        check_solved(run, 1, PROBLEMS)
    assert "\n" not in str(e.value) and len(str(e.value)) < 400


def test_with_worked_examples_the_round_goes_on_and_says_so(tmp_path, executor):
    run = searched(tmp_path, executor, Says("print(12)"), worked_examples=[dict(steps=["answer"])])
    check_solved(run, 1, PROBLEMS)
    assert said(run).startswith("the search of round 1 solved none of 6 problems: ")


def test_a_search_that_solved_something_says_nothing(tmp_path, executor):
    run = searched(tmp_path, executor, StandIn(PROBLEMS, spoil=0.2))
    assert any(row["solved"] for row in read_lines(tmp_path / "round_1" / "search.jsonl"))
    check_solved(run, 1, PROBLEMS)
    assert not said(run)


def test_solutions_that_may_not_be_learnt_from(tmp_path, executor):
    run = searched(tmp_path, executor, StandIn(PROBLEMS, spoil=0.2))
    write_lines(tmp_path / "round_1" / "selected.jsonl", [])
    with pytest.raises(ValueError, match="round 1: no solution was selected.*held out"):
        sft_phase(run, 1)


def test_no_tree_at_all():
    assert "no step" in what_was_seen([Tree("p", "How many?")], {"p": "1"})


@pytest.mark.parametrize(
    "answer, kind",
    [
        (12, "a number"),
        ("12 cm", "a number"),
        (True, "a text"),
        ({"type": "set", "items": [1, 2]}, "a set"),
        ("(1,2)", "a row"),
        ("3:00 PM", "a clock"),
        (None, "a text"),
    ],
)
def test_kinds_have_names(answer, kind):
    assert kind_of(answer) == kind
