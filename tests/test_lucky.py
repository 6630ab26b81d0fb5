import re

import pytest

from rstar_nb.evolve.lucky import given_away, lucky_programs
from rstar_nb.executor.pool import Executor
from rstar_nb.problems.generator import (
    generate,
    gold_program,
    make_problem,
    number_variant,
    variant_texts,
)
from rstar_nb.store import write_lines


@pytest.fixture(scope="module")
def executor():
    with Executor(workers=1, preload=()) as executor:
        yield executor


def rows():
    """An honest row and a lucky one for each of some problems of both worlds."""
    for p in generate(20, seed=5, levels=[2, 3], kind="mix"):
        if p.answer in re.findall(r"\d+", p.question):
            continue  # the program that says this number follows the question
        common = dict(problem_id=p.id, question=p.question)
        yield dict(common, steps=gold_program(p.id))
        yield dict(common, steps=[f"answer = {p.answer}"])


def test_gold_programs_are_not_given_away_and_constants_are(executor):
    for row in rows():
        found = given_away(row, executor)
        lucky = row["steps"][0].startswith("answer")
        assert (found is not None) == lucky, row
        if lucky:
            assert str(found["got"]) == make_problem(row["problem_id"]).answer
            assert found["wanted"] != found["got"]
            assert found["question"] != row["question"]


def test_the_shortest_lucky_programs_are_told(executor, tmp_path):
    write_lines(tmp_path / "selected.jsonl", list(rows()))
    found = lucky_programs(tmp_path, executor, most=4)
    lengths = [len("".join(r["steps"])) for r in found]
    assert len(found) == 4 and lengths == sorted(lengths)
    assert all(r["steps"] == [f"answer = {r['answer']}"] and r["other"] for r in found)
    write_lines(tmp_path / "selected.jsonl", [r for r in rows() if len(r["steps"]) > 1])
    assert lucky_programs(tmp_path, executor) == []


def test_a_variant_has_the_same_numbers_in_question_and_programs():
    p = generate(1, seed=5, levels=[3])[0]
    program = "\n".join(gold_program(p.id))
    question, gold, given = variant_texts(p, program, 1)
    assert gold == given and question != p.question
    assert number_variant(p, program, 1) == (gold, given)
