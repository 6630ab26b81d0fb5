import hashlib
import json
import math
import random
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from rstar_nb.problems.files import load_problems, save_problems
from rstar_nb.problems.generator import (
    SUBJECTS_OF,
    generate,
    gold_program,
    is_story,
    make_problem,
    number_variant,
    numbered,
    renumber,
    split_of,
    uncited,
)
from rstar_nb.problems.problem import ProblemFileError
from rstar_nb.problems.relations import KINDS, WORLDS, num_statements, rename, reorder


def test_splits_share_nothing():
    splits = [generate(600, s, seed) for s in ("train", "test") for seed in (0, 1)] + [
        generate(60, "ood")
    ]
    texts = [{p.question for p in s} for s in splits]
    train, test, ood = texts[0] | texts[1], texts[2] | texts[3], texts[4]
    assert not train & test and not train & ood and not test & ood


def test_split_is_decided_by_the_question():
    for split in ("train", "test", "ood"):
        assert all(split_of(p.question, p.level) == split for p in generate(60, split, seed=3))


def test_gold_programs_give_the_answer_and_have_level_steps():
    for p in generate(300, "test", seed=7):
        steps, scope = gold_program(p.id), {}
        exec("\n".join(steps), scope)  # our own text, not a model's
        assert len(steps) == p.level
        assert math.isclose(scope["answer"], float(p.answer), rel_tol=1e-9)


def test_problems_follow_from_their_id():
    assert all(make_problem(p.id) == p for p in generate(30, "ood", seed=2))
    with pytest.raises(ValueError, match="not the id of a generated problem"):
        make_problem("gsm8k-7")


@pytest.mark.parametrize("kind", SUBJECTS_OF)
def test_levels_and_subjects_are_balanced(kind):
    problems = generate(360, kind=kind)
    assert {p.subject for p in problems} == set(SUBJECTS_OF[kind])
    assert {p.id.split("-")[0] for p in problems} == {kind}
    for field, number in (("level", 6), ("subject", len(SUBJECTS_OF[kind]))):
        counts = [
            sum(getattr(p, field) == v for p in problems)
            for v in {getattr(p, field) for p in problems}
        ]
        assert len(counts) == number and max(counts) - min(counts) <= 12


def test_unknown_split_and_level():
    with pytest.raises(ValueError, match="unknown split"):
        generate(1, "dev")
    with pytest.raises(ValueError, match="has levels"):
        generate(1, "train", levels=[9])


def test_renumber_is_consistent():
    question, code = renumber(
        ["7 boxes of 12 pens and 7 more", "answer = 7 * 12 + 7"], random.Random(1)
    )
    a, b, c = [int(t) for t in question.split() if t.isdigit()]
    assert a == c != b and code == f"answer = {a} * {b} + {a}" and 7 != a


def test_renumber_leaves_cited_sentences_alone():
    rng = random.Random(3)
    for _ in range(50):
        question, step = renumber(
            [
                "There are 3 boxes, 12 pens and 13 more",
                "# (3) 3 times 12\n# (12) and 13\nanswer = (3 * 12) + 13",
            ],
            rng,
        )
        a, b, c = re.findall(r"\d+", question)
        assert step == f"# (3) {a} times {b}\n# (12) and {c}\nanswer = ({a} * {b}) + {c}"


def test_wide_numbers_have_about_as_many_digits():
    seen = [renumber(["7 of 48 and 649"], random.Random(i), wide=True)[0] for i in range(300)]
    numbers = [[int(n) for n in re.findall(r"\d+", t)] for t in seen]
    assert all(
        3 <= a < 20 and 10 < b < 120 and 100 < c < 1020 for a, b, c in numbers
    )  # a few more than there are, so that there is always a free one
    assert min(c for *_, c in numbers) < 150 and max(c for *_, c in numbers) > 950


def test_every_step_cites_the_sentence_with_its_numbers():
    for p in generate(300, "ood", seed=5):
        parts = re.split(r"\((\d)\) ", numbered(p.question))[1:]
        sentences = dict(zip(map(int, parts[::2]), parts[1::2]))
        cited = [int(re.match(r"# \((\d)\) ", s)[1]) for s in gold_program(p.id)]
        assert cited == sorted(set(cited)) and cited[0] == 1
        for step, at in zip(gold_program(p.id), cited):
            own = set(re.findall(r"\d+", uncited(step).splitlines()[0])) - {"100"}
            assert own <= set(re.findall(r"\d+", sentences[at] + sentences.get(at + 1, ""))), (
                p.question,
                step,
            )
            assert (
                uncited(step).startswith("# ")
                and "(" + str(at) + ")" not in uncited(step).splitlines()[0]
            )


def test_numbered_text_is_the_text():
    assert (
        numbered("Half of 3.5 is 1.75. Why? It is so!  Done")
        == "(1) Half of 3.5 is 1.75. (2) Why? (3) It is so!  Done"
    )
    assert numbered("") == "" and numbered("One\ntwo") == "(1) One\ntwo"


def test_number_variant_finds_a_constant():
    p = generate(1, "test")[0]
    for v in range(3):
        gold, constant = number_variant(p, f"answer = {p.answer}", v)
        scopes = {}, {}
        for text, scope in zip((gold, constant), scopes):
            exec(text, scope)
        assert scopes[0]["answer"] != scopes[1]["answer"]


def test_file_round_trip(tmp_path):
    problems = generate(20)
    save_problems(problems, tmp_path / "p.jsonl")
    assert load_problems(tmp_path / "p.jsonl") == problems


@pytest.mark.parametrize(
    "line, message",
    [
        ('{"id": "b", "question": "2+2?"}', "line 2: field 'answer' is missing"),
        (
            '{"id": "b", "question": "2+2?", "answer": "4", "level": "two"}',
            "line 2: field 'level' must be an integer",
        ),
        ('{"id": "b", "question": " ", "answer": "4"}', "line 2: field 'question' is empty"),
        ('{"id": "b", "question": ["x"], "answer": "4"}', "line 2: field 'question' must be text"),
        (
            '{"id": "a", "question": "2+2?", "answer": "4"}',
            "line 2: field 'id': 'a' was used in line 1",
        ),
        ('{"id": "b", "question"', "line 2: not JSON"),
        ("[1]", "line 2: expected a JSON object"),
    ],
)
def test_bad_lines_name_file_line_and_field(tmp_path, line, message):
    path = tmp_path / "p.jsonl"
    path.write_text('{"id": "a", "question": "1+1?", "answer": 2}\n' + line + "\n")
    with pytest.raises(ProblemFileError) as e:
        load_problems(path)
    assert message in str(e.value) and str(path) in str(e.value) and "\n" not in str(e.value)


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(ProblemFileError, match="no such file"):
        load_problems(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(ProblemFileError, match="holds no problem"):
        load_problems(tmp_path / "empty.jsonl")
    (tmp_path / "latin.jsonl").write_bytes('{"id": "é"}'.encode("latin-1"))
    with pytest.raises(ProblemFileError, match="not UTF-8"):
        load_problems(tmp_path / "latin.jsonl")


def values_of(p):
    """(values after the steps of the gold program, without its final `len` or `sum`; codes)."""
    codes, value, values = [], None, []
    for step in gold_program(p.id):
        name, code = step.splitlines()[-1].split(" = ", 1)
        if name == "answer" and p.subject != "divisors":
            code = code[4:-1]
        codes.append(code)
        value = eval(
            code, {"math": math, "numbers": value, "terms": value, "n": value}
        )  # our own text, not a model's
        values.append(value)
    return values, codes


def test_every_step_changes_the_value():
    for p in generate(900, seed=4):
        if p.subject in ("counting", "divisors", "sequence"):
            values, _ = values_of(p)
            assert all(a != b for a, b in zip(values, values[1:])), p.question


def test_a_count_depends_on_every_step():
    counts = [p for p in generate(1200, seed=4, levels=[2, 3]) if "How many numbers" in p.question]
    assert len(counts) > 20
    for p in counts:
        _, codes = values_of(p)
        for i, code in enumerate(codes):
            if " if " not in code:
                continue
            value = None
            for c in [*codes[:i], code.replace(" if ", " if not "), *codes[i + 1 :]]:
                value = eval(c, {"numbers": value})
            assert len(value) != float(p.answer), (p.question, code)


def test_weights_decide_what_is_drawn():
    drawn = generate(200, weights={(2, "story"): 1, (5, "equation"): 3})
    found = [(p.level, p.subject) for p in drawn]
    assert set(found) == {(2, "story"), (5, "equation")} and 25 <= found.count((2, "story")) <= 75
    assert (
        len({p.question for p in drawn}) == 200
        and generate(200, weights={(2, "story"): 1, (5, "equation"): 3}) == drawn
    )


INPUTS = json.loads((Path(__file__).parent / "data" / "problem_inputs.json").read_text())
LONG_LINES = [
    ("[" * 100_000, "not JSON"),
    ('{"id": "b", "question": "?", "answer": ' + "9" * 5000 + "}", "not JSON"),
]


def one_line_error(path, line, **kwargs):
    """The message for a file whose second line is wrong."""
    path.write_text('{"id": "a", "question": "1+1?", "answer": 2}\n' + line + "\n")
    with pytest.raises(ProblemFileError) as e:
        load_problems(path, **kwargs)
    assert "\n" not in str(e.value) and f"{path}, line 2: " in str(e.value)
    return str(e.value)


@pytest.mark.parametrize("line, message", INPUTS["bad_lines"] + LONG_LINES)
def test_other_people_s_bad_lines_get_one_line(tmp_path, line, message):
    assert message in one_line_error(tmp_path / "p.jsonl", line)


@pytest.mark.parametrize("answer", INPUTS["bad_references"])
def test_what_is_no_reference_is_named_or_skipped(tmp_path, answer, capsys):
    path = tmp_path / "p.jsonl"
    line = json.dumps(dict(id="b", question="?", answer=answer))
    assert "field 'answer'" in one_line_error(path, line)
    capsys.readouterr()
    assert [p.id for p in load_problems(path, skip_bad=True)] == ["a"]
    said = capsys.readouterr().err
    assert said.startswith(f"{path}: 1 of 2 problems left out; the first: {path}, line 2: field")
    assert said.count("\n") == 1


@pytest.mark.parametrize("answer", [*INPUTS["good_references"], 0, 0.0, -1, 2.5, 10**20])
def test_what_is_a_reference_is_one(tmp_path, answer, capsys):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(dict(id="a", question="?", answer=answer)) + "\n")
    for skip_bad in (False, True):
        (problem,) = load_problems(path, skip_bad=skip_bad)
        assert problem.answer == str(answer)
    assert capsys.readouterr().err == ""


def test_a_file_of_bad_references_only_holds_no_problem(tmp_path, capsys):
    (tmp_path / "p.jsonl").write_text('{"id": "a", "question": "?", "answer": ""}\n')
    with pytest.raises(ProblemFileError, match="holds no problem"):
        load_problems(tmp_path / "p.jsonl", skip_bad=True)


def test_a_byte_order_mark_is_read_over(tmp_path):
    problems = generate(3)
    save_problems(problems, tmp_path / "p.jsonl")
    data = (tmp_path / "p.jsonl").read_bytes()
    (tmp_path / "p.jsonl").write_bytes(b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"))
    assert load_problems(tmp_path / "p.jsonl") == problems


def test_a_seed_gives_the_same_problems_for_ever():
    """Records name problems by id: any change to the tables makes other problems of them."""
    known = {"gen": "94d0f32b14a048a5", "sto": "93b7266190dacaa7", "mix": "6575a490d872b0a7"}
    for kind in SUBJECTS_OF:
        problems = [
            p for split in ("train", "test", "ood") for p in generate(120, split, seed=1, kind=kind)
        ]
        text = json.dumps([[asdict(p), gold_program(p.id)] for p in problems])
        assert hashlib.sha256(text.encode()).hexdigest()[:16] == known[kind], kind


def test_problems_need_no_heavy_library():
    heavy = ("torch", "transformers", "datasets", "reasoning_gym", "sympy")
    code = (
        "import sys, rstar_nb.problems.files, rstar_nb.problems.generator; "
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- stories whose order must be found


def stories(n, split="train", seed=3, levels=None):
    """`n` problems that tell a story in disorder, with their gold programs."""
    problems = generate(n, split, seed, levels, kind="sto")
    assert {p.subject for p in problems} == set(WORLDS)
    return [(p, gold_program(p.id)) for p in problems]


def outcome(steps):
    """The answer of a program, or the name of the error that ended it."""
    scope = {}
    try:
        exec("\n".join(steps), scope)  # our own text, not a model's
    except Exception as e:
        return type(e).__name__
    return scope["answer"]


@pytest.mark.parametrize("split", ["train", "test", "ood"])
def test_gold_programs_of_stories_give_the_answer_a_step_for_each_statement(split):
    for p, steps in stories(160, split):
        assert len(steps) == num_statements(p.level), p.question
        assert outcome(steps) == int(p.answer) > 2, p.question


def cited_by(question, steps):
    """The sentences that the steps cite, which tell the numbers and names of the steps."""
    parts = re.split(r"\((\d+)\) ", numbered(question))[1:]
    sentences = dict(zip(map(int, parts[::2]), parts[1::2]))
    cited = [int(re.match(r"# \((\d+)\) ", step)[1]) for step in steps]
    for step, at in zip(steps, cited, strict=True):
        left, code = step.splitlines()[1].split(" = ")
        words = re.findall(r"\w+", code)
        if left != "answer":
            words.append(left)
        assert set(words) <= set(re.findall(r"[A-Za-z]+|\d+", sentences[at])), (question, step)
    return [sentences[at].strip() for at in cited], len(sentences)


def test_a_step_of_a_story_cites_the_sentence_that_tells_its_numbers_and_names():
    for p, steps in stories(200):
        cited, number = cited_by(p.question, steps)
        assert len(set(cited)) == len(steps)
        assert number == len(steps) + 1


def test_a_story_told_in_another_order_has_the_same_program_and_cites_the_same_sentences():
    moved = 0
    for p, steps in stories(200, levels=[6]):
        question, *other = reorder([p.question, *steps], random.Random(p.id))
        moved += question != p.question
        assert sorted(re.split(r"(?<=[.?]) ", question)) == sorted(
            re.split(r"(?<=[.?]) ", p.question)
        )
        assert question.split(". ")[-1] == p.question.split(". ")[-1]
        assert [s.splitlines()[1] for s in other] == [s.splitlines()[1] for s in steps]
        assert cited_by(question, other) == cited_by(p.question, steps)
    assert moved > 180


def test_only_stories_may_be_told_in_another_order():
    for p in generate(120, seed=2, kind="mix"):
        assert is_story(p.id) == (p.subject in WORLDS)
    assert not is_story("gen-0-train-1-0") and is_story("sto-0-train-1-0")
    assert not is_story("mine") and not is_story("")


def test_a_story_is_told_in_disorder_and_all_of_it_is_needed():
    told = stories(240, levels=[4, 5, 6])
    cited = [[int(re.match(r"# \((\d+)\)", step)[1]) for step in steps] for _, steps in told]
    disordered = sum(at != sorted(at) for at in cited) / len(told)
    assert disordered > 0.5 and all(sorted(at) == [*range(1, len(at) + 1)] for at in cited)


def test_a_step_that_comes_too_early_fails():
    """Here running a step tells something: a name that has no value yet is an error."""
    swapped = failed = 0
    for p, steps in stories(240, levels=[2, 3, 4]):
        for i in range(len(steps) - 1):
            early = [*steps[:i], steps[i + 1], steps[i], *steps[i + 2 :]]
            after = outcome(early)
            swapped += 1
            failed += after == "NameError"
            # Two steps that do not need each other may come in either order, but for the last.
            assert after in ("NameError", int(p.answer))
            assert after == "NameError" or i < len(steps) - 2
    assert swapped > 200 and failed / swapped > 0.75


def test_every_way_to_say_a_kind_tells_the_same():
    """A story notes the numbers it told after the first way, whichever was drawn."""
    for name, world in WORLDS.items():
        assert set(world.say) == set(KINDS)
        for kind, ways in [("start", world.start.say), *world.say.items()]:
            told = {frozenset(re.findall(r"\{(\w+)\}", way)) - {"items"} for way in ways}
            assert len(told) == 1, (name, kind)


def test_renaming_keeps_every_program_right():
    renamed = 0
    for p in generate(900, seed=8, kind="mix"):
        steps = gold_program(p.id)
        question, *other = rename([p.question, *steps], random.Random(p.id))
        renamed += question != p.question
        scopes = {}, {}
        for texts, scope in zip((steps, other), scopes, strict=True):
            exec("\n".join(texts), scope)
        assert scopes[0]["answer"] == scopes[1]["answer"], (question, other)
        if p.subject in WORLDS:
            numbers = [re.findall(r"\d+", text) for text in (p.question, question)]
            assert numbers[0] == numbers[1]
    assert renamed > 300


def test_renaming_exchanges_only_names_of_the_question():
    (p, steps), *_ = stories(24, levels=[3])
    question, other = rename([p.question, "unrelated = Zoe + 3"], random.Random(1))
    assert other == "unrelated = Zoe + 3" and question != p.question
    names = {name for world in WORLDS.values() for name in world.names}
    before, after = ([w for w in re.findall(r"\w+", t)] for t in (p.question, question))
    pairs = {(a, b) for a, b in zip(before, after, strict=True) if a != b}
    assert {a for a, _ in pairs} <= names and {b for _, b in pairs} <= names
    assert len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)


def test_variants_of_a_story_have_other_numbers_and_other_answers():
    ran = different = 0
    for p, steps in stories(160):
        if p.answer in re.findall(r"\d+", p.question):
            continue  # a story may tell its answer: then the program that says it follows
        for v in range(2):
            gold, given = number_variant(p, "\n".join(steps), v)
            assert gold == given
            after = outcome([gold])
            assert isinstance(after, int), (p.question, gold)
            _, constant = number_variant(p, f"answer = {p.answer}", v)
            ran += 1
            different += after != int(p.answer) and outcome([constant]) != after
    assert different / ran > 0.95
