"""The prompt of a model that has never seen a step, and what may be learnt from."""

from types import SimpleNamespace

import pytest

from rstar_nb.executor.pool import Executor
from rstar_nb.policy.prompts import (
    INSTRUCTION,
    SHOTS,
    StepPrompt,
    badly_formed,
    failure_of,
    first_round_filter,
    is_chat_model,
)
from rstar_nb.policy.steps import STEP_END, is_terminal


def test_the_examples_run_and_are_in_the_format():
    with Executor(workers=1, preload=()) as executor:
        results = executor.run([STEP_END.join(s) for _, s in SHOTS])
    assert [r.answer for r in results] == [50, 13.5, 168]
    for _, steps in SHOTS:
        assert badly_formed(steps) == "" and not any(STEP_END in s for s in steps)
        assert [is_terminal(s) for s in steps] == [False] * (len(steps) - 1) + [True]


def test_a_base_models_prompt_ends_where_a_program_begins():
    for shots in range(4):
        text = StepPrompt(None, shots)("How many?")
        assert text.endswith("Question: How many?" + STEP_END + "Program:" + STEP_END)
        assert text.count("Question:") == shots + 1 and (INSTRUCTION in text) == bool(shots)


class Template:
    chat_template = "yes"

    def apply_chat_template(self, turns, tokenize, add_generation_prompt):
        assert not tokenize and add_generation_prompt
        return "".join(f"<{t['role']}>{t['content']}" for t in turns) + "<assistant>"


def test_a_chat_models_prompt_shows_examples_as_turns():
    text = StepPrompt(Template(), 2, chat=True)("How many?")
    assert text.startswith("<system>" + INSTRUCTION) and text.endswith("<user>How many?<assistant>")
    assert text.count("<assistant>") == 3 and SHOTS[1][1][-1] in text and SHOTS[2][0] not in text
    trained = StepPrompt(Template(), 0, chat=True)("How many?")
    assert (
        INSTRUCTION not in trained
        and trained.startswith("<system>")
        and trained.endswith("<user>How many?<assistant>")
    )


@pytest.mark.parametrize(
    "source, chat",
    [
        ("a/SmolLM2-135M-Instruct", True),
        ("Qwen/Qwen2.5-Math-7B", False),
        ("google/gemma-2b-it", True),
        ("meta/Llama-2-chat", True),
        ("a/digit-model", False),
    ],
)
def test_a_template_alone_makes_no_chat_model(source, chat):
    assert is_chat_model(Template(), source) is chat
    assert not is_chat_model(SimpleNamespace(chat_template=None), source)


@pytest.mark.parametrize(
    "steps, why",
    [
        (["# 4 and 2\nlegs = 3 * 4 + 2 * 2", "answer = legs"], ""),
        (["answer = len(range(3, 100, 3))"], ""),
        (["x = [1, 2]", "answer = x[0]"], ""),
        (["cats = 3", "answer = 16"], "a bare number as the answer"),
        (["answer = -16"], "a bare number as the answer"),
        (["answer = 'six'"], "a bare number as the answer"),
        (["answer = 3 * 4", "answer = answer + 0"], "answer before the end"),
        (["x = 3"], "no answer at the end"),
        ([], "no answer at the end"),
        (["# we count", "answer = 3 * 4"], "a step without code"),
        (['"""First we count."""', "answer = 3 * 4"], "prose as a string"),
        (["x = 3\nprint(x)", "answer = x * 4"], "reads or prints"),
        (["the cats", "answer = 3 * 4"], "a step that is not Python"),
    ],
)
def test_what_the_first_round_does_not_learn_from(steps, why):
    assert badly_formed(steps) == why


def test_the_filter_keeps_rows_and_counts_reasons():
    rows = [
        dict(steps=["answer = 1"]),
        dict(steps=["x = 1", "answer = x"]),
        dict(steps=["answer = 2"]),
    ]
    assert first_round_filter(rows) == ([rows[1]], {"a bare number as the answer": 2})


def test_classes_of_failure():
    def r(status="ok", answer=None, error=""):
        return SimpleNamespace(status=status, answer=answer, error=error)

    assert failure_of("```python\nanswer = 1\n```", True, r("error"), False) == "code fence"
    assert failure_of("x = 1", False, r(), False) == "no end"
    assert failure_of("First we add.", True, r("error"), False) == "not Python"
    assert (
        failure_of(
            "answer = x",
            True,
            r("error", error="line 1, NameError: name 'x' is not defined"),
            False,
        )
        == "error: NameError"
    )
    assert failure_of("answer = 1", True, r("timeout"), False) == "timeout"
    assert failure_of("x = 1", True, r(), False) == "no answer"
    assert failure_of("answer = 1", True, r(answer=1), False) == "wrong answer"
    assert failure_of("answer = 1", True, r(answer=1), True) == "right"
