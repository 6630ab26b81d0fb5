"""Problems nobody here wrote: data sets in local files, reasoning-gym, train against test."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rstar_nb.answers.judge import is_equivalent
from rstar_nb.problems.files import load_problems, save_problems
from rstar_nb.problems.gym import rg_correct, rg_problems, with_scorers
from rstar_nb.problems.overlap import overlapping, without_test
from rstar_nb.problems.problem import Problem, ProblemFileError, normalized_question
from rstar_nb.problems.sources import SOURCES, last_boxed, load_source, problems_of, write_split

pytest.importorskip("datasets")
pytest.importorskip("reasoning_gym")
REAL = Path(__file__).resolve().parents[2] / "shared" / "data"
GSM8K = [
    dict(
        question="Two boxes of 600 nails. How many?", answer="2*600=<<2*600=1200>>1200\n#### 1,200"
    ),
    dict(question="A tape of 1,050 metres in 3 parts?", answer="So.\n#### 350"),
]
MATH500 = [
    dict(
        problem="What is $1+1$?",
        solution="It is $\\boxed{2}$.",
        answer="2",
        subject="Prealgebra",
        level=1,
        unique_id="test/prealgebra/1.json",
    )
]
NUMINA = [
    dict(
        problem="Find x.",
        solution="...",
        answer="\\frac{1}{2}",
        problem_type="Algebra",
        question_type="math-word-problem",
        problem_is_valid="Yes",
        solution_is_valid="Yes",
        source="olympiads",
        synthetic=False,
    ),
    dict(
        problem="Choose.",
        solution="...",
        answer="B",
        problem_type="Algebra",
        question_type="MCQ",
        problem_is_valid="Yes",
        solution_is_valid="Yes",
        source="amc",
        synthetic=False,
    ),
    dict(
        problem="Prove.",
        solution="...",
        answer="proof",
        problem_type="Algebra",
        question_type="proof",
        problem_is_valid="Yes",
        solution_is_valid="Yes",
        source="olympiads",
        synthetic=False,
    ),
]
NUMINA_COT = [
    dict(
        source="synthetic_math",
        problem="Find y.",
        solution="So $y = \\boxed{\\frac{3}{4}}$.",
        messages=[dict(role="user", content="Find y.")],
    ),
    dict(source="amc", problem="Which?", solution="It is $\\boxed{\\text{B}}$.", messages=[]),
    dict(source="olympiads", problem="Show it.", solution="QED", messages=[]),
]


def written(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


@pytest.mark.parametrize(
    "name, rows, expected",
    [
        ("gsm8k", GSM8K, [("gsm8k-0", "1200", 0), ("gsm8k-1", "350", 0)]),
        ("math500", MATH500, [("math-test/prealgebra/1.json", "2", 1)]),
        ("numina", NUMINA, [("numina-0", "\\frac{1}{2}", 0)]),
        ("numina_cot", NUMINA_COT, [("numina-0", "\\frac{3}{4}", 0)]),
    ],
)
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_columns_of_the_originals(tmp_path, name, rows, expected, kind):
    file = written(tmp_path / "rows.jsonl", rows)
    if kind == "parquet":
        import datasets

        datasets.load_dataset("json", data_files=str(file), split="train").to_parquet(
            file := tmp_path / "rows.parquet"
        )
    assert [(p.id, p.answer, p.level) for p in load_source(name, file=file)] == expected
    assert len(load_source(name, file=file, limit=1)) == 1


BOXED = json.loads((Path(__file__).parent / "data" / "problem_inputs.json").read_text())["boxed"]


@pytest.mark.parametrize("text, answer", BOXED)
def test_boxed(text, answer):
    assert last_boxed(text) == answer


def test_rows_left_out_are_counted_and_said(tmp_path, capsys):
    file = written(tmp_path / "n.jsonl", NUMINA)
    assert len(load_source("numina", file=file)) == 1
    said = capsys.readouterr().err
    assert said == (
        f"{file}: 2 of 3 rows left out, they have no answer that can be verified; "
        "the first is row 2\n"
    )
    assert len(load_source("gsm8k", file=written(tmp_path / "g.jsonl", GSM8K))) == 2
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "name, rows, answers",
    [
        ("gsm8k", [dict(question="?", answer=0)], ["0"]),
        ("gsm8k", [dict(question="?", answer=1200)], ["1200"]),
        ("math500", [dict(problem="?", answer=0, level=None)], ["0"]),
        ("math500", [dict(problem="?", answer=2.5)], ["2.5"]),
        ("numina", [dict(problem="?", answer=0)], ["0"]),
        ("numina", [dict(problem="?", answer=None, solution=r"\boxed 9")], ["9"]),
        ("numina", [dict(problem="?", answer=7), dict(problem=None, answer=7)], ["7"]),
        ("numina", [dict(problem="?", answer=7), dict(problem="?", answer=None)], ["7"]),
        ("gsm8k", [dict(question="?", answer="#### 1"), dict(question="?", answer=None)], ["1"]),
        ("math500", [dict(problem="?", answer="1"), dict(problem="?", answer="NaN")], ["1"]),
    ],
)
def test_numbers_and_nulls_of_other_people_s_rows(tmp_path, name, rows, answers):
    file = written(tmp_path / "rows.jsonl", rows)
    assert [p.answer for p in load_source(name, file=file)] == answers


@pytest.mark.parametrize(
    "family, fault",
    [
        ("coin_flip", "accepts 0"),
        ("game_of_life_halting", "accepts any answer"),
        ("polynomial_multiplication", "rejects its own reference"),
        ("graph_color", "says that there is none"),
        ("rush_hour", "says that there is none"),
    ],
)
def test_families_of_no_use_are_named_before_any_work(family, fault):
    with pytest.raises(ProblemFileError, match=f"rg:{family}: .*{fault}") as e:
        rg_problems(("gcd", family), 4)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("family", ["puzzle24", "gcd", "fraction_simplification", "countdown"])
def test_families_of_use_are_not(family):
    assert len(rg_problems(family, 3)) == len(rg_problems(family, 3, skip_bad=True)) == 3


def test_a_family_whose_scorer_is_of_no_use_is_named(tmp_path, monkeypatch, capsys):
    """One that rejects its own reference, and one that accepts whatever is said."""
    import reasoning_gym.arithmetic.chain_sum as chain_sum

    good = rg_problems("gcd", 2)
    path = tmp_path / "p.jsonl"
    for score, what in ((0.0, "rejects its own reference"), (1.0, "accepts any answer")):
        monkeypatch.undo()
        bad = [replace(p, answer="3 + 4") for p in rg_problems("chain_sum", 2, skip_bad=True)]
        monkeypatch.setattr(
            chain_sum.ChainSumDataset, "score_answer", lambda self, answer, entry, s=score: s
        )
        save_problems([*good, *bad], path)
        with pytest.raises(ProblemFileError) as e:
            load_problems(path)
        assert f"{path}, line 3: " in str(e.value) and what in str(e.value)
        assert "chain_sum" in str(e.value) and "\n" not in str(e.value)
        assert [p.id for p in load_problems(path, skip_bad=True)] == [p.id for p in good]
        assert "2 of 4 problems left out" in capsys.readouterr().err
        if score == 1.0:
            with pytest.raises(ProblemFileError, match="rg:chain_sum: .*accepts any answer"):
                rg_problems("chain_sum", 2)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        (dict(name="gsm9k"), "no such source"),
        (dict(name="math500", split="train"), "has no split 'train'"),
        (dict(name="gsm8k", file="nowhere.jsonl"), "no such file"),
        (dict(name="gsm8k", file=__file__), "or not .jsonl"),
    ],
)
def test_mistakes_are_said_in_one_line(kwargs, message):
    with pytest.raises(ProblemFileError, match=message) as e:
        load_source(**kwargs)
    assert "\n" not in str(e.value)


def test_other_columns_and_broken_files(tmp_path):
    with pytest.raises(ProblemFileError, match="no column 'answer'; this is not gsm8k"):
        load_source("gsm8k", file=written(tmp_path / "a.jsonl", [dict(text="x")]))
    (tmp_path / "b.jsonl").write_text("{broken\n")
    with pytest.raises(ProblemFileError, match="cannot be read"):
        load_source("gsm8k", file=tmp_path / "b.jsonl")
    with pytest.raises(ProblemFileError, match="no row has an answer"):
        load_source("numina", file=written(tmp_path / "c.jsonl", NUMINA[1:]))


def test_no_network_is_one_line(monkeypatch):
    import datasets
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        ProblemFileError, match="openai/gsm8k: cannot be had from the hub.*local file"
    ) as e:
        load_source("gsm8k", "test")
    assert "\n" not in str(e.value)


def test_reasoning_gym_is_repeatable_and_different():
    a, b = (
        rg_problems(("gsm_symbolic", "chain_sum"), 20, seed=1),
        rg_problems(("gsm_symbolic", "chain_sum"), 20, seed=1),
    )
    assert (
        a == b and len({normalized_question(p.question) for p in a}) == len({p.id for p in a}) == 20
    )
    assert {p.subject for p in a} == {"gsm_symbolic", "chain_sum"}
    assert not {p.question for p in a} & {
        p.question
        for p in rg_problems(
            ("gsm_symbolic", "chain_sum"), 20, seed=1, skip=[p.question for p in a]
        )
    }
    with pytest.raises(ProblemFileError, match="rg:nothing"):
        rg_problems("nothing", 2)


def test_its_own_scorer():
    fraction = rg_problems("fraction_simplification", 1)[0]
    assert (
        rg_correct(fraction, fraction.answer)
        and not rg_correct(fraction, "1/3")
        and not rg_correct(fraction, None)
    )
    total = next(p for p in rg_problems("basic_arithmetic", 40, seed=2) if p.answer.startswith("-"))
    assert rg_correct(total, int(total.answer)) and not rg_correct(total, -int(total.answer))
    game = rg_problems("puzzle24", 1)[0]  # several right answers: only its own scorer knows
    assert rg_correct(game, game.answer)


def test_our_grader_agrees_on_numeric_families():
    for family in (
        "gsm_symbolic",
        "chain_sum",
        "gcd",
        "lcm",
        "leg_counting",
        "products",
        "count_primes",
        "simple_equations",
    ):
        for p in rg_problems(family, 5, seed=9):
            value = float(p.answer) if "." in p.answer else int(p.answer)
            assert is_equivalent(value, p.answer) and not is_equivalent(value + 1, p.answer)


def test_copies_and_edited_copies_are_found():
    test = [
        Problem(
            "t",
            "A robe takes 2 bolts of blue fiber and half that much white fiber. How many in all?",
            "3",
        )
    ]
    train = [
        Problem(
            "a",
            "A ROBE takes 2 bolts of blue fiber, and half that much white fiber! How many in all?",
            "3",
        ),
        Problem(
            "b",
            "Hint: a robe takes 2 bolts of blue fiber and half that much white fiber. How many?",
            "3",
        ),
        Problem("c", "A robe takes 5 bolts of red fiber. How many bolts do 3 robes take?", "15"),
        Problem("d", "1 + 1?", "2"),
    ]
    assert overlapping(train, test) == {"a": "t", "b": "t"}
    assert overlapping(train, test, share=2) == {"a": "t"}
    kept, dropped = without_test(train, test)
    assert [p.id for p in kept] == ["c", "d"] and set(dropped) == {"a", "b"}
    assert (
        normalized_question("It costs $1,200.50!")
        == normalized_question("it costs 1200.50")
        != normalized_question("it costs 1200.55")
    )


@pytest.mark.skipif(not REAL.is_dir(), reason="the real data lies beside the original checkout")
def test_real_data_against_itself():
    for name in ("gsm8k", "math500"):
        problems = load_problems(REAL / f"{name}_dev.jsonl")
        assert set(overlapping(problems[:50], problems[:50])) == {p.id for p in problems[:50]}
        assert (
            len(overlapping(problems[100:], problems[:100])) <= 5
        )  # different problems of one source hardly ever share half their words in a row


def test_written_halves_share_nothing(tmp_path):
    found = write_split(tmp_path, "rg:chain_sum", "rg:chain_sum", 30, 20)
    train, test = load_problems(found["train"]), load_problems(found["test"])
    assert (
        len(train) == 30
        and len(test) == 20
        and not {normalized_question(p.question) for p in train}
        & {normalized_question(p.question) for p in test}
    )
    copy = tmp_path / "again.jsonl"
    copy.write_text((tmp_path / "test.jsonl").read_text())
    assert len(problems_of(str(copy), 5)) == 5
    found = write_split(tmp_path / "b", str(copy), str(copy), 20, 10)
    assert len(found["dropped"]) == 10 and set(SOURCES) >= {"gsm8k", "math500", "numina"}


HOSTILE = [
    "__import__('os').system('touch HERE')",
    "open('HERE', 'w')",
    "().__class__",
    "9**9**9**9",
    "9 * * 9",
    "9" * 40,
    "1e999999999",
    "x" * 1000,
    "print 1)",
    "factorial(10)",
    "os.system",
    "'%9999999999d' % 1",
    "a!b",
    "\x00",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_scorer_sees_what_could_be_evaluated_to_something_else(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    import reasoning_gym.games.puzzle24 as puzzle24

    game, seen = rg_problems("puzzle24", 1)[0], []
    monkeypatch.setattr(
        puzzle24.Puzzle24Dataset,
        "score_answer",
        lambda self, answer, entry: seen.append(answer) or 1.0,
    )
    assert rg_correct(game, "1 * 24") and seen == ["1 * 24"]
    assert (
        not rg_correct(game, text)
        and not rg_correct(game, [text])
        and len(seen) == 1
        and not list(tmp_path.iterdir())
    )


def test_references_that_grade():
    plain = [*rg_problems(("puzzle24", "chain_sum"), 2), Problem("mine", "1 + 1?", "2")]
    game, chain, mine = with_scorers(plain)
    assert (
        (game, chain, mine) == tuple(plain)
        and json.dumps(game.answer) == json.dumps(str(game.answer))
        and type(mine.answer) is str
    )
    others = [f"1 * {game.answer}", game.answer.replace(" ", "")]
    assert (
        game.answer(str(game.answer))
        and not game.answer(24)
        and not game.answer(None)
        and any(game.answer(a) for a in others)
    )
    assert chain.answer(int(chain.answer)) and not chain.answer(int(chain.answer) + 1)
    import copy
    import pickle

    assert (
        type(copy.deepcopy(game.answer)) is str
        and pickle.loads(pickle.dumps(game.answer)) == game.answer
    )


def test_another_version_of_a_family_is_not_asked():
    game = rg_problems("puzzle24", 1)[0]
    from dataclasses import replace

    assert not rg_correct(
        replace(game, question="Another one?"), game.answer.replace(" ", "") + " "
    )


def test_the_loop_grades_by_the_family_s_scorer(tmp_path):
    from rstar_nb.answers.judge import is_equivalent
    from rstar_nb.problems.files import load_problems, save_problems
    from rstar_nb.search.mcts import evaluate
    from rstar_nb.search.tree import Node, Tree

    game = rg_problems("puzzle24", 1)[0]
    save_problems([game, Problem("mine", "1 + 1?", "2")], tmp_path / "p.jsonl")
    scored, mine = load_problems(tmp_path / "p.jsonl")
    assert (scored, mine.answer) == (game, "2") and type(mine.answer) is str
    another = game.answer.replace(" ", "")
    assert is_equivalent(another, scored.answer) and not is_equivalent(24, scored.answer)
    tree = Tree(game.id, game.question)
    tree.nodes.append(Node(1, 0, f"answer = {another!r}", answer=another))
    assert evaluate(tree, 1, scored.answer) == 1.0 and tree.nodes[1].correct
