"""The record of a measurement: killed, torn, extended, refused. And statistics drawn from it."""

import json
import math
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from standin import StandIn

from rstar_nb.executor.result import Result
from rstar_nb.measure.accuracy import measure_search
from rstar_nb.measure.comparison import (
    compare_with_first,
    discordant,
    holm,
    mcnemar,
    paired_bootstrap,
)
from rstar_nb.measure.measurement import (
    Measurement,
    comparisons,
    measure,
    result_row,
    summarise,
)
from rstar_nb.measure.runs import load_round
from rstar_nb.problems.generator import generate
from rstar_nb.problems.problem import Problem
from rstar_nb.search.agent import Agent, SearchOptions
from rstar_nb.search.thoughts import Program, Thought
from rstar_nb.show.curves import curve
from rstar_nb.store import StoreError, read_lines

PROBLEMS = generate(20, "test", seed=4)


class Policy(StandIn):
    def encode(self, question, steps=()):
        return " ".join([question, *steps]).split()


class Scorer:
    def score(self, prefixes):
        return [(sum(map(ord, "".join(steps))) % 201 - 100) / 100 for _, steps in prefixes]


class Calculator:
    """Gold programs give the reference, others a number of their own."""

    right = {p.question: p.answer for p in PROBLEMS}

    def run(self, programs):
        return [
            Result("ok", sum(map(ord, p)) % 7, "", None, 0.0)
            if "missing" not in p
            else Result("error", None, "", "NameError", 0.0)
            for p in programs
        ]


def agent(policy=None):
    return Agent(policy or Policy(PROBLEMS), Calculator(), Scorer())


# Four strategies at two budgets on twenty problems, in waves of eight.
MEASUREMENT = Measurement(PROBLEMS, ("greedy", "majority", "best_of_n", "mcts"), (40, 120), wave=8)
MAJORITY = replace(MEASUREMENT, strategies=("majority",), budgets=(40,))

CHILD = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import rstar_nb.store as store, rstar_nb.measure.measurement as measurement
from test_measurement import MEASUREMENT, agent
sealed, left = store._sealed, {n}
def torn(row):
    global left
    text = sealed(row)
    left -= 1
    if left == 0:
        with open({out!r} + "/rows.jsonl", "a") as f:
            f.write(text[:len(text) // 2])
            f.flush()
            os.fsync(f.fileno())
        os.kill(os.getpid(), signal.SIGKILL)
    return text
store._sealed = torn
measurement.measure({out!r}, MEASUREMENT, agent())
"""


@pytest.mark.parametrize("n", [3, 30, 70])
def test_killed_in_the_middle_of_a_line_and_gone_on_ends_with_the_same_rows(tmp_path, n):
    whole = measure(tmp_path / "whole", MEASUREMENT, agent())
    out = tmp_path / "killed"
    child = subprocess.run(
        [sys.executable, "-c", CHILD.format(tests=str(Path(__file__).parent), out=str(out), n=n)],
        capture_output=True,
        text=True,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert (out / "rows.jsonl").read_bytes() != (tmp_path / "whole" / "rows.jsonl").read_bytes()
    assert measure(out, MEASUREMENT, agent()) == whole
    assert (out / "rows.jsonl").read_bytes() == (tmp_path / "whole" / "rows.jsonl").read_bytes()


@pytest.mark.parametrize("share", [0.01, 0.3, 0.77, 0.999])
def test_a_write_cut_off_anywhere_is_completed_without_double_rows(tmp_path, share):
    whole = measure(tmp_path, MEASUREMENT, agent())
    data = (tmp_path / "rows.jsonl").read_bytes()
    (tmp_path / "rows.jsonl").write_bytes(data[: int(len(data) * share)])
    again = measure(tmp_path, MEASUREMENT, agent())
    assert again == whole and (tmp_path / "rows.jsonl").read_bytes() == data


def test_what_is_there_is_not_computed_again_and_more_can_be_added(tmp_path):
    first = measure(tmp_path, MAJORITY, agent())

    class Refuses(Policy):
        def propose(self, *args, **options):
            raise AssertionError("asked again")

    assert measure(tmp_path, MAJORITY, agent(Refuses(PROBLEMS))) == first
    wider = replace(MEASUREMENT, strategies=("majority", "best_of_n"))
    both = measure(tmp_path, wider, agent())
    of_first = [r for r in both if r["strategy"] == "majority" and r["budget"] == 40]
    assert of_first == first and len(both) == 4 * len(PROBLEMS)
    assert measure(tmp_path, MAJORITY, agent()) == first
    keys = [
        (r["problem_id"], r["strategy"], r["budget"]) for r in read_lines(tmp_path / "rows.jsonl")
    ]
    assert len(keys) == len(set(keys)) == 4 * len(PROBLEMS)


@pytest.mark.parametrize(
    "name, change",
    [
        ("seed", dict(options=replace(MEASUREMENT.options, seed=1))),
        ("candidates", dict(options=replace(MEASUREMENT.options, candidates=5))),
        ("wave", dict(wave=9)),
        ("problems", dict(problems=[replace(p, answer=p.answer + "0") for p in PROBLEMS])),
    ],
)
def test_another_measurement_in_the_same_folder_is_refused(tmp_path, name, change):
    greedy = replace(MAJORITY, strategies=("greedy",))
    measure(tmp_path, greedy, agent())
    with pytest.raises(StoreError, match=f"other {name}"):
        measure(tmp_path, replace(greedy, **change), agent())


def test_a_measurement_of_another_round_in_the_same_folder_is_refused(tmp_path):
    greedy = replace(MAJORITY, strategies=("greedy",))
    measure(tmp_path, greedy, agent())
    with pytest.raises(StoreError, match="other round"):
        measure(tmp_path, greedy, agent(), about=dict(round=3))


def test_a_row_is_graded_against_the_reference():
    p = Problem("p", "?", "4", 2, "x")
    right = Program(["answer = 2 + 2"], 4.0)
    wrong = Program(["answer = 5"], 5)

    def row_of(chosen):
        return result_row(p, Thought("p", "?", [right, wrong], chosen=chosen), "majority", 9)

    assert row_of(right)["correct"] and row_of(right)["found"]
    assert row_of(right)["program"] == "answer = 2 + 2" and row_of(right)["subject"] == "x"
    assert not row_of(wrong)["correct"] and row_of(wrong)["found"]
    nothing = result_row(p, Thought("p", "?"), "majority", 9)
    assert not nothing["correct"] and not nothing["found"] and nothing["answer"] is None


def test_summary_counts_by_hand():
    def row(i, strategy, right, tokens):
        return dict(
            problem_id=str(i),
            level=1 + i % 2,
            subject="",
            strategy=strategy,
            budget=50,
            correct=right,
            found=True,
            generated=tokens,
            prefix=1,
            scored=2,
        )

    rows = [row(i, "a", i < 3, 10 * i) for i in range(4)] + [
        row(i, "b", i > 0, 5) for i in range(4)
    ]
    times = [
        dict(strategy="a", budget=50, wave=0, seconds=9.0),
        dict(strategy="a", budget=50, wave=0, seconds=2.0),
        dict(strategy="a", budget=50, wave=4, seconds=1.0),
    ]
    a, b = summarise(rows, times)
    assert (a["correct"], a["n"], a["by_level"], a["tokens"], a["seconds"]) == (
        3,
        4,
        {"1": [2, 2], "2": [1, 2]},
        dict(generated=15.0, prefix=1.0, scored=2.0),
        3.0,
    )
    assert (
        curve([a, b], "a") == [(15.0, 0.75, a["low"], a["high"])]
        and curve([a, b], "a", total=True)[0][0] == 18.0
    )
    (c,) = comparisons(rows)
    assert (c["a"], c["b"], c["only_a"], c["only_b"], c["difference"], c["p"]) == (
        "a",
        "b",
        1,
        1,
        0.0,
        1.0,
    )


def test_mcnemar_is_the_share_of_coin_throws_at_least_as_lopsided():
    rng = random.Random(0)
    for _ in range(60):
        a, b = ([rng.random() < 0.5 for _ in range(18)] for _ in range(2))
        x, y = discordant(a, b)
        throws = [bin(i).count("1") for i in range(2 ** (x + y))]
        assert math.isclose(
            mcnemar(a, b),
            sum(abs(2 * heads - x - y) >= abs(x - y) for heads in throws) / len(throws),
        )


def test_bootstrap_agrees_with_drawing_questions_and_refuses_what_is_not_paired():
    import numpy as np

    rng = np.random.default_rng(1)
    a, b = rng.random(60) < 0.5, rng.random(60) < 0.7
    d = b.astype(float) - a
    means = [d[rng.integers(0, 60, 60)].mean() for _ in range(10_000)]
    difference, low, high = paired_bootstrap(a, b)
    assert (
        difference == d.mean()
        and abs(low - np.quantile(means, 0.025)) < 0.02
        and abs(high - np.quantile(means, 0.975)) < 0.02
    )
    with pytest.raises(ValueError, match="cannot be paired"):
        mcnemar(a, b[:-1])
    with pytest.raises(ValueError, match="no question"):
        paired_bootstrap([], [])


def test_holm_and_the_table():
    assert (
        holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
        and holm([]) == []
        and holm([0.9, 0.9]) == [1.0, 1.0]
    )
    rows = compare_with_first(
        dict(x=[1, 0, 0, 0, 0, 0], y=[0, 1, 1, 1, 1, 1], z=[1, 0, 0, 0, 0, 0])
    )
    assert [(r["b"], r["only_a"], r["only_b"]) for r in rows] == [
        ("y", 1, 5),
        ("z", 0, 0),
    ] and rows[0]["p_holm"] == pytest.approx(2 * rows[0]["p"])


def test_holms_correction_runs_over_all_budgets():
    def rows_of(budget, wins):
        """Strategy b wins so many of ten questions that a answers wrong."""
        return [
            dict(problem_id=str(i), strategy=name, budget=budget, correct=name == "b" and i < wins)
            for name in ("a", "b")
            for i in range(10)
        ]

    compared = comparisons(rows_of(50, 6) + rows_of(100, 10) + rows_of(200, 0))
    p_values = [c["p"] for c in compared]
    assert [c["budget"] for c in compared] == [50, 100, 200]
    assert p_values == pytest.approx([2 / 2**6, 2 / 2**10, 1.0])
    # The smallest of three counts three times, the next one twice.
    assert [c["p_holm"] for c in compared] == pytest.approx([4 / 2**6, 6 / 2**10, 1.0])
    assert [c["p_holm"] for c in compared] == holm(p_values)


def test_the_progress_of_a_search_reaches_its_total_though_trees_end_early():
    class OneProgram(Policy):
        """Proposes the same step again and again, so that a tree holds one program."""

        def propose(self, prefixes, k, seeds, temperature=1.0, top_k=0, whole=False):
            rows = super().propose(prefixes, k, [0] * len(prefixes), temperature, top_k, whole)
            return [[candidates[0]] * k for candidates in rows]

    problems = PROBLEMS[:5]
    advanced = []
    policy = OneProgram(PROBLEMS, spoil=0)
    options = SearchOptions(rollouts=6, candidates=3, max_depth=9)
    _, trees = measure_search(
        agent(policy), problems, options, on_rollouts=lambda n: advanced.append(n)
    )
    made = sum(t.rollouts for t in trees)
    assert made == 5, "a tree with one program should end after one rollout"
    assert sum(advanced) == 6 * len(problems)


def test_the_progress_of_a_search_counts_a_rollout_once():
    advanced = []
    options = SearchOptions(rollouts=3, candidates=3, max_depth=9)
    _, trees = measure_search(agent(), PROBLEMS, options, on_rollouts=lambda n: advanced.append(n))
    assert sum(advanced) == 3 * len(PROBLEMS) and max(advanced[:-1]) == 1
    assert sum(t.rollouts for t in trees) > len(PROBLEMS)


def test_a_missing_round_is_said_in_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished round"):
        load_round(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="no finished round"):
        load_round(tmp_path)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run of one round whose models know nothing: the real policy and PPM, only small."""
    from rstar_nb.policy.policy import Policy as Real
    from rstar_nb.policy.steps import plain_prompt
    from rstar_nb.policy.tiny import tiny_model, train_tokenizer
    from rstar_nb.problems.generator import gold_program
    from rstar_nb.reward.model import RewardModel
    from rstar_nb.store import publish

    folder = tmp_path_factory.mktemp("run")
    tokenizer = train_tokenizer(
        [plain_prompt(p.question) + "\n\n".join(gold_program(p.id)) for p in PROBLEMS]
    )
    policy = Real(
        tiny_model(
            len(tokenizer),
            hidden_size=16,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            intermediate_size=16,
        ),
        tokenizer,
    )
    for k in (0, 1):
        publish(folder / f"round_{k}" / "policy", policy.save)
    publish(folder / "round_1" / "ppm", RewardModel(policy).save)
    return folder


def rstar(*args):
    done = subprocess.run(
        [sys.executable, "-c", "from rstar_nb.cli.main import main; main()", *map(str, args)],
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_eval_command_measures_a_problem_file_and_ends_with_one_json_line(run_folder, tmp_path):
    from rstar_nb.problems.files import save_problems

    save_problems(PROBLEMS[:3], tmp_path / "p.jsonl")
    args = (
        "eval",
        run_folder,
        "--problems",
        tmp_path / "p.jsonl",
        "--strategy",
        "greedy,majority,mcts",
        "--budget",
        "10,20",
        "--out",
        tmp_path / "out",
        "--quiet",
    )
    code, out, err = rstar(*args)
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    assert [(r["strategy"], r["budget"], r["n"]) for r in result["rounds"][0]["results"]] == [
        (s, b, 3) for b in (10, 20) for s in ("greedy", "majority", "mcts/uct/vote")
    ]
    assert result["rounds"][0]["round"] == 1 and {
        c["test"] for c in result["rounds"][0]["comparisons"]
    } == {"exact McNemar, two-sided"}
    assert (
        len(read_lines(tmp_path / "out" / "round_1" / "rows.jsonl")) == 18
        and (tmp_path / "out" / "curves.png").exists()
    )
    assert json.loads(rstar(*args)[1].splitlines()[-1]) == result


@pytest.mark.parametrize(
    "args, message",
    [
        (("--strategy", "magic"), "unknown strategy 'magic'"),
        (("--strategy", "beam", "--round", "0"), "round 0 has no PPM"),
        (("--strategy", "best_of_n/orm"), "needs an ORM"),
        (("--round", "7"), "choose from 0, 1"),
        (("--round", "one"), "--round 'one' is not a list"),
        (("--problems", "none.jsonl"), "no such file"),
        (("--orm", "nowhere"), "no finished ORM"),
    ],
)
def test_eval_errors_are_one_clear_line(run_folder, tmp_path, args, message):
    from rstar_nb.problems.files import save_problems

    save_problems(PROBLEMS[:1], tmp_path / "p.jsonl")
    given = args if "--problems" in args else (*args, "--problems", tmp_path / "p.jsonl")
    code, out, err = rstar("eval", run_folder, "--out", tmp_path / "out", "--quiet", *given)
    assert (
        code == 1
        and message in err
        and err.strip().startswith("error: ")
        and err.strip().count("\n") == 0
    ), err


def test_solve_shows_the_search_and_answers_in_json(run_folder, tmp_path):
    code, out, err = rstar(
        "solve",
        "What is 1 + 1?",
        "--run",
        run_folder,
        "--budget",
        "30",
        "--html",
        tmp_path / "tree.html",
    )
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    assert (
        "What is 1 + 1?" in err
        and result["round"] == 1
        and result["tokens"] >= 30
        and (tmp_path / "tree.html").exists()
    )
    code, out, err = rstar(
        "solve",
        "What is 1 + 1?",
        "--run",
        run_folder,
        "--strategy",
        "greedy",
        "--html",
        tmp_path / "none.html",
    )
    assert code == 1 and "grows no tree" in err


def test_rows_come_in_the_order_that_was_asked_for():
    """The first strategy is what others are compared with, whatever was measured first."""
    from rstar_nb.measure.measurement import Measurement, wanted_rows

    problems = generate(2, "test")
    rows = [
        dict(problem_id=p.id, strategy=name, budget=budget)
        for name in ("majority", "greedy", "mcts/uct/vote")
        for budget in (200, 100)
        for p in problems
    ]
    asked = Measurement(problems, ("greedy", "majority"), (100, 200))
    found = [(r["budget"], r["strategy"]) for r in wanted_rows(rows, asked)]
    order = [(b, s) for b in (100, 200) for s in ("greedy", "majority") for _ in problems]
    assert found == order
