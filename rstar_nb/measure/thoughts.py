import re
from dataclasses import dataclass

from ..answers.judge import is_equivalent
from ..measure.intervals import wilson
from ..policy.steps import STEP_END
from ..problems.generator import gold_program, number_text

# Subjects whose every step is one equation between numbers: no lists, no greatest common divisors.
WORDED = ("story", "percent", "equation", "shares", "prices", "ages", "system")

def telling(
    steps,  # texts of a program's steps; the last one gives `answer`
) -> str:
    """A program whose answer is the list of the values that the steps give, in order."""
    names = [step.splitlines()[-1].split(" = ")[0] for step in steps]
    kept = [f"{step}\ntold.append({name})" for step, name in zip(steps, names, strict=True)]
    return "\n".join(["told = []", *kept, "answer = told"])

_STEP = re.compile(r"(# .*)\n(\w+) = (.+)")
_NAME = re.compile(r"[A-Za-z_]\w*")


def in_words(
    steps,  # texts of a program's steps: a comment and a line of arithmetic each
    values,  # what each step gave
) -> list:
    """The steps with numbers for the names, and each result written behind its arithmetic."""
    known, told = {}, []
    for step, value in zip(steps, values, strict=True):
        note, name, code = _STEP.fullmatch(step).groups()
        numbers = _NAME.sub(lambda m: known[m[0]], code)
        known[name] = number_text(value)
        told.append(f"{note}\n{name}: {numbers} = {known[name]}")
    return told

def program_rows(problems) -> list:
    """Training rows of generated problems: question, and the steps of the gold program."""
    return [dict(question=p.question, steps=gold_program(p.id)) for p in problems]


def word_rows(
    problems,  # generated problems of the subjects in `WORDED`
    executor,  # works out the value of every step
) -> list:
    """The rows of `program_rows` with the steps in words."""
    rows = program_rows(problems)
    results = executor.run([telling(row["steps"]) for row in rows])
    return [
        dict(row, steps=in_words(row["steps"], result.answer))
        for row, result in zip(rows, results, strict=True)
    ]

_DIGITS = re.compile(r"(?<=\d)(?=\d)")
_GAPS = re.compile(r"(?<=\d) (?=\d)")


def spaced(text: str) -> str:
    """The text with a space between the digits of a number, so that each digit is a token."""
    return _DIGITS.sub(" ", text)


def closed(text: str) -> str:
    """The text with the digits of a number together again."""
    return _GAPS.sub("", text)

@dataclass(frozen=True)
class Line:
    """One step in words: what it is about, the arithmetic, the result as written."""

    name: str
    left: str  # of the equals sign
    right: str


_LINE = re.compile(r"(\w+): ([\d .+\-*/()]+) = (-?\d+(?:\.\d+)?)")


def lines_of(
    text: str,  # a chain of thought: steps with an empty line between them
) -> list:
    """A `Line` for each step, None for a step that cannot be read."""
    found = [_LINE.fullmatch(step.split("\n")[-1]) for step in text.split(STEP_END)]
    return [m and Line(*m.groups()) for m in found]


def answer_in_words(text: str) -> str | None:
    """The result of the last step, if that is the answer; None where there is none to read."""
    last = lines_of(text)[-1]
    return last.right if last and last.name == "answer" else None

def equation_test(line: Line) -> str:
    """A program that answers whether an equation holds, to a millionth."""
    return f"left = {line.left}\nanswer = abs(left - ({line.right})) < 1e-6"


def check_equations(
    texts,  # chains of thought
    executor,
) -> list:
    """For each chain, step by step: does its equation hold? None for a step that has none."""
    found = [lines_of(text) for text in texts]
    programs = [equation_test(line) for lines in found for line in lines if line]
    results = iter(executor.run(programs))
    return [[line and next(results).answer is True for line in lines] for lines in found]

_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def worked_out(text: str) -> str:
    """The program that makes the same choices as a chain and leaves the arithmetic to Python.

    A number that an earlier step gave as its result stands for that step.
    """
    program, giver = [], {}
    for i, line in enumerate(filter(None, lines_of(text))):
        left = _NUMBER.sub(lambda m: giver.get(m[0], m[0]), line.left)
        program.append(f"step_{i} = {left}")
        giver[line.right] = f"step_{i}"
    return "\n".join([*program, f"answer = step_{len(program) - 1}"])

def cause(correct: bool, answer, chosen: bool) -> str | None:
    """Why a chain is wrong: nothing to read, the arithmetic alone, or the choice of a step."""
    if correct:
        return None
    if answer is None:
        return "unreadable"
    return "arithmetic" if chosen else "choice"


def judge_words(
    problems,
    texts,  # a chain of thought for each
    executor,
) -> list:
    """A row for each chain: what it answers, what a checker notices, and why it is wrong."""
    held = check_equations(texts, executor)
    results = executor.run([worked_out(text) for text in texts])
    rows = []
    for p, text, holds, result in zip(problems, texts, held, results, strict=True):
        answer = answer_in_words(text)
        correct = answer is not None and is_equivalent(answer, p.answer)
        chosen = result.answer is not None and is_equivalent(result.answer, p.answer)
        row = dict(problem_id=p.id, level=p.level, subject=p.subject, program=text)
        row |= dict(answer=answer, correct=correct, holds=holds)
        row |= dict(noticed=answer is None or not all(holds), chosen=chosen)
        rows.append(dict(row, cause=cause(correct, answer, chosen)))
    return rows

def rate(part: int, whole: int) -> dict:
    """A count and its 95 % Wilson interval, rounded to thousandths."""
    return dict(part=part, n=whole, interval=[round(x, 3) for x in wilson(part, whole)])


def summary(
    rows,  # with `correct` and `noticed`
) -> dict:
    """Right answers; wrong ones that are noticed; right ones noticed; right ones among the rest."""
    wrong = [row for row in rows if not row["correct"]]
    passed = [row for row in rows if not row["noticed"]]
    n_right, n_right_passed = (sum(row["correct"] for row in some) for some in (rows, passed))
    return dict(
        right=rate(n_right, len(rows)),
        wrong_noticed=rate(sum(row["noticed"] for row in wrong), len(wrong)),
        right_noticed=rate(n_right - n_right_passed, n_right),
        right_of_passed=rate(n_right_passed, len(passed)),
    )

def by_step(
    rows,  # with `holds`
) -> list:
    """For each step: (equations that hold, equations, chains whose first false one is here)."""
    counts = []
    for holds in (row["holds"] for row in rows):
        counts += [[0, 0, 0] for _ in holds[len(counts) :]]
        for count, held in zip(counts, holds):
            count[0] += held is True
            count[1] += held is not None
        if False in holds:
            counts[holds.index(False)][2] += 1
    return [tuple(count) for count in counts]