"""Chains of thought: made from gold programs, read, checked by the executor, blamed."""

import json
import math
from pathlib import Path

import pytest

from rstar_nb.executor.pool import Executor
from rstar_nb.measure.thoughts import (
    WORDED,
    answer_in_words,
    by_step,
    check_equations,
    closed,
    judge_words,
    lines_of,
    spaced,
    summary,
    word_rows,
    worked_out,
)
from rstar_nb.policy.steps import STEP_END, is_terminal
from rstar_nb.problems.generator import SUBJECTS_OF, generate, gold_program

RECORD = Path(__file__).resolve().parent.parent / "figures" / "records" / "thoughts.json"
PROBLEMS = [p for p in generate(300, "test", seed=9, kind="mix") if p.subject in WORDED]
SLIP = "# (1) 6 times 7\nJun: 6 * 7 = 44\n\n# (2) 3 more than Jun\nanswer: 44 + 3 = 47"


@pytest.fixture(scope="module")
def executor():
    with Executor(workers=1, preload=(), wall=60) as executor:
        yield executor


@pytest.fixture(scope="module")
def chains(executor):
    return [STEP_END.join(row["steps"]) for row in word_rows(PROBLEMS, executor)]


def test_words_say_what_the_program_computes(chains):
    """Every result, worked out here with fractions of no executor, and the answer of the last."""
    assert {p.subject for p in PROBLEMS} == set(WORDED) < set(SUBJECTS_OF["mix"])
    for p, text in zip(PROBLEMS, chains, strict=True):
        known = {}
        for step, line in zip(gold_program(p.id), lines_of(text), strict=True):
            note, code = step.split("\n")
            name, expression = code.split(" = ", 1)
            known[name] = eval(expression, {}, known)
            assert line.name == name and note in text
            assert math.isclose(float(line.right), known[name]), (p.id, step)
        assert answer_in_words(text) == p.answer


def test_words_have_numbers_where_programs_have_names(chains):
    for text in chains:
        for line in lines_of(text):
            assert not any(c.isalpha() for c in line.left)


def test_only_the_last_step_of_a_chain_ends_it(chains):
    for text in chains:
        *others, last = text.split(STEP_END)
        assert is_terminal(last) and not any(map(is_terminal, others))


def test_digits_apart_and_together_again(chains):
    assert spaced("57 + 158 = 215") == "5 7 + 1 5 8 = 2 1 5"
    for p, text in zip(PROBLEMS, chains, strict=True):
        for told in (p.question, text):
            assert closed(spaced(told)) == told


@pytest.mark.parametrize(
    "text",
    [
        "",
        "answer: = 3",
        "answer: 1 + 2 = 3 or so",
        "answer: 1 + 2 = three",
        "answer = 3",
        "answer: __import__('os') = 3",
        "Jun: 1 + 2 = 3",
        "answer: 1 + 2 = 3\n\n# (2) and",
    ],
)
def test_what_is_no_answer_in_words(text):
    assert answer_in_words(text) is None


def test_equations_are_checked_one_by_one(executor):
    texts = [SLIP, "answer: 1 / 3 = 0.33", "answer: 5 / 2 = 2.5", "so it goes"]
    assert check_equations(texts, executor) == [[False, True], [False], [True], [None]]


@pytest.mark.parametrize(
    "left",
    ["9 ** 9 ** 9 ** 9", "1 / 0", "1) - (1", "1 2", "()", "((((((1", "007"],
)
def test_hostile_arithmetic_does_not_hold(executor, left):
    """What is no arithmetic, or has no end, neither holds nor disturbs the chain after it."""
    assert check_equations([f"answer: {left} = 0", SLIP], executor) == [[False], [False, True]]


def test_a_calculator_carries_results_on(executor):
    assert executor.run([worked_out(SLIP)])[0].answer == 45
    assert executor.run([worked_out("no line here")])[0].answer is None


def judged(texts, executor):
    problems = PROBLEMS[: len(texts)]
    return judge_words(problems, texts, executor)


def test_causes(executor, chains):
    """A right chain, then a wrong result, a wrong choice, two that come to no answer."""
    at = next(i for i, p in enumerate(PROBLEMS) if p.level == 2 and p.subject in ("shares", "ages"))
    problem, text = PROBLEMS[at], chains[at]
    last = lines_of(text)[-1]
    end = f"= {last.right}"
    arithmetic = text.removesuffix(end) + f"= {int(last.right) + 1}"
    choice = text.removesuffix(f"{last.left} {end}") + "3 + 4 = 7"
    unreadable = text.removesuffix(end)
    cut = text.split(STEP_END)[0]  # its equation holds, and it never comes to an answer
    told = [text, arithmetic, choice, unreadable, cut]
    rows = judge_words([problem] * len(told), told, executor)
    causes = [None, "arithmetic", "choice", "unreadable", "unreadable"]
    assert [row["cause"] for row in rows] == causes
    assert [row["noticed"] for row in rows] == [False, True, False, True, True]


def test_gold_chains_are_right_and_pass(executor, chains):
    rows = judged(chains, executor)
    assert all(row["correct"] and row["chosen"] and not row["noticed"] for row in rows)


def test_counts():
    rows = [
        dict(correct=True, noticed=False, holds=[True, True]),
        dict(correct=True, noticed=True, holds=[False, True]),
        dict(correct=False, noticed=True, holds=[True, False, False]),
        dict(correct=False, noticed=True, holds=[None]),
        dict(correct=False, noticed=False, holds=[True]),
    ]
    parts = {name: (r["part"], r["n"]) for name, r in summary(rows).items()}
    assert parts == dict(
        right=(2, 5), wrong_noticed=(2, 3), right_noticed=(1, 2), right_of_passed=(1, 2)
    )
    assert by_step(rows) == [(3, 4, 1), (2, 3, 1), (0, 1, 0)]


def test_the_record_is_about_the_same_questions_and_models():
    record = json.loads(RECORD.read_text())
    arms, problems = record["arms"], record["problems"]
    assert len(problems) >= 300 and {p["subject"] for p in problems} == set(WORDED)
    assert {len(arm["rows"]) for arm in arms.values()} == {len(problems)}
    assert len({arm["weights"] for arm in arms.values()}) == 1
    right = {name: sum(row["correct"] for row in arm["rows"]) for name, arm in arms.items()}
    for c in record["comparisons"]:
        assert c["only_b"] - c["only_a"] == right[c["b"]] - right[c["a"]]


def test_the_record_is_judged_as_the_judge_judges(executor):
    """The first chains of each kind of words, read and checked again."""
    record = json.loads(RECORD.read_text())
    setting = record["setting"]
    drawn = generate(setting["problems"], "test", setting["seed"], kind="mix")
    problems = [p for p in drawn if p.subject in WORDED]
    assert [p.id for p in problems] == [p["problem_id"] for p in record["problems"]]
    for name in set(record["arms"]) - {"programs"}:
        kept = record["arms"][name]["rows"][:60]
        again = judge_words(problems[:60], [row["program"] for row in kept], executor)
        for row, new in zip(kept, again, strict=True):
            assert row == {key: new.get(key, row[key]) for key in row}
