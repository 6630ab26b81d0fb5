"""Measure the answer checker: hand-made pairs, generated rewrites and near misses, speed.

python tests/benchmarks/answers.py [--data ../shared/data]
"""

import argparse
import json
import platform
import re
import sys
import timeit
from collections import Counter, defaultdict
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from rstar_nb.answers.data import as_text
from rstar_nb.answers.equality import has
from rstar_nb.answers.forms import read_text
from rstar_nb.answers.judge import compare, is_equivalent
from rstar_nb.answers.kinds import Algebra, Equation, Matrix, Num, Quantity, Seq, Several
from rstar_nb.answers.second_opinion import SecondOpinion

PAIRS = ROOT / "tests" / "data" / "answer_pairs.jsonl"
DATA = ROOT.parent / "shared" / "data"


def load_pairs():
    return [json.loads(line) for line in PAIRS.open()]


def load_answers(folder=DATA):
    """Every reference answer of the two development files, as text."""
    return [
        str(json.loads(line)["answer"])
        for name in ("math500_dev", "gsm8k_dev")
        for line in (folder / f"{name}.jsonl").open()
    ]


def spell(tree):
    """A formula in Python's spelling, fully bracketed."""
    op, *args = tree
    if op == "num":
        return str(args[0]) if Fraction(args[0]).denominator == 1 else f"({Fraction(args[0])})"
    if op == "sym":
        return args[0]
    if op == "const":
        return {"i": "I", "inf": "oo"}.get(args[0], args[0])
    if op == "fn":
        return f"{args[0]}({spell(args[1])})"
    if op == "neg":
        return f"(-{spell(args[0])})"
    return (
        "("
        + {"add": "+", "sub": "-", "mul": "*", "div": "/", "pow": "**"}[op].join(map(spell, args))
        + ")"
    )


def number_rewrites(n):
    """Ways to write one exact number."""
    n = Fraction(n)
    yield "as a fraction object", n
    yield "as n/d", f"{n.numerator}/{n.denominator}"
    yield "as \\frac", rf"\frac{{{n.numerator}}}{{{n.denominator}}}"
    yield "as an unreduced fraction", f"{6 * n.numerator}/{6 * n.denominator}"
    yield "as a float", float(n)
    yield "as an equation", f"x = {n}"
    if n < 0:
        yield "with a typographic minus", "−" + str(-n)
    if n.denominator == 1:
        i = int(n)
        yield "as an int", i
        yield "with a point and zeros", f"{i}.00"
        yield "as a Decimal", Decimal(i)
        yield "in groups of three", f"{i:,}"
        yield "in LaTeX groups", f"{i:,}".replace(",", "{,}")
        yield "as money", f"${i}" if i >= 0 else f"-${-i}"
        yield "with a unit", rf"{i}\text{{ apples}}"
    elif float(n) == float(f"{float(n):.6g}"):
        yield "as a decimal text", f"{float(n)!r}"
        yield "in scientific notation", f"{Decimal(repr(float(n))):e}"


def rewrites(answer):
    """(kind, other way of writing the same answer)"""
    yield "itself", answer
    yield "boxed", rf"\boxed{{{answer}}}"
    yield "between dollars", f"${answer.rstrip('.')}$" if "$" not in answer else rf"\({answer}\)"
    yield "padded, with a full stop", f"  {answer} ."
    yield "displayed", rf"\displaystyle {answer}"
    yield "\\frac as \\dfrac", answer.replace(r"\frac", r"\dfrac")
    if "(" in answer:
        yield (
            "growing brackets",
            re.sub(r"(?<!\\left)\(", r"\\left(", re.sub(r"(?<!\\right)\)", r"\\right)", answer)),
        )
    if r"\left" in answer:
        yield "plain brackets", answer.replace(r"\left", "").replace(r"\right", "")
    if not re.search(r"\\[a-zA-Z]|\d,\d\d\d|\s\d", answer):
        yield "without spaces", answer.replace(" ", "")
    value = read_text(answer)
    if isinstance(value, Num):
        yield from number_rewrites(value.value)
    if isinstance(value, Quantity):
        yield "without its unit", spell(("num", value.value.value))
        yield "as a plain number", float(value.value.value)
    if isinstance(value, Algebra):
        yield "in Python's spelling", spell(value.tree)
        yield "plus zero", f"{answer} + 0"
        yield "times one", f"1 \\cdot ({answer})"
        if not has(value.tree, "sym"):
            yield "as a number of 16 digits", numeric(answer)
    if isinstance(value, Equation):
        yield "sides exchanged", "=".join(answer.split("=")[::-1])
    if isinstance(value, Several) and "," in answer:
        yield "in another order", ", ".join(answer.split(",")[::-1])
        yield "as a set", r"\{" + answer + r"\}"
    items = getattr(value, "items", ())
    if items and all(isinstance(v, Num) for v in items) and isinstance(value, (Seq, Several)):
        if getattr(value, "open", "(") == "(" and getattr(value, "close", ")") == ")":
            yield "as a tuple", tuple(v.value for v in items)
            yield "as a tuple of floats", tuple(float(v.value) for v in items)
    if isinstance(value, Matrix):
        rows = [[v.value for v in row] for row in value.rows]
        yield "as nested lists", rows
        yield "as floats", [[float(v) for v in row] for row in rows]
        yield (
            "as sympy prints it",
            f"Matrix({[[Fraction(v) for v in r] for r in rows]})".replace("Fraction", "Rational"),
        )
        yield "in square brackets", answer.replace("pmatrix", "bmatrix")


def numeric(answer):
    """The value of a LaTeX constant as sympy works it out: an int, float or complex."""
    from latex2sympy2_extended import latex2sympy

    answer = re.sub(r"\\sqrt ?(\d)", r"\\sqrt{\1}", answer)
    formula = latex2sympy(answer, convert_degrees=False, normalization_config=None)
    z = complex(formula.subs({s: 1j for s in formula.free_symbols if s.name == "i"}).evalf(20))
    return z if z.imag else z.real


def number_misses(n):
    """Numbers that are close to `n` in the ways programs and graders go wrong."""
    n = Fraction(n)
    others = {
        "times 100": n * 100,
        "divided by 100": n / 100,
        "plus one": n + 1,
        "minus one": n - 1,
        "sign": -n,
        "relative 5e-5": n * (1 + Fraction(5, 10**5)),
        "times ten": n * 10,
        "relative 1e-7": n * (1 + Fraction(1, 10**7)),
    }
    for kind, m in others.items():
        if m == n:
            continue
        yield kind, m
        yield kind + ", float", float(m)
        yield (
            kind + ", text",
            str(m.numerator) if m.denominator == 1 else f"{m.numerator}/{m.denominator}",
        )
        if m.denominator == 1 or kind.startswith("relative"):
            yield kind + ", decimal text", f"{Decimal(m.numerator) / m.denominator:f}"
    if n.denominator != 1:
        for digits in (1, 2, 3, 4):
            if Fraction(f"{float(n):.{digits}f}") != n:
                yield f"rounded to {digits} places", f"{float(n):.{digits}f}"


def misses(answer):
    """(kind, an answer that differs in value)"""
    value = read_text(answer)
    if isinstance(value, Quantity) and isinstance(value.value, Num):
        value = value.value
    if isinstance(value, Equation) and isinstance(value.right, Num) and value.right.value:
        value = value.right
    if isinstance(value, Num):
        yield from number_misses(value.value)
    elif isinstance(value, Algebra):
        for kind, text in [
            ("plus one", f"({answer}) + 1"),
            ("times 100", f"100({answer})"),
            ("sign", f"-({answer})"),
            ("relative 5e-5", f"1.00005({answer})"),
            ("relative 1e-7", f"1.0000001({answer})"),
            ("squared", f"({answer})^2"),
        ]:
            yield kind, text
        if not has(value.tree, "sym"):
            x = numeric(answer)
            for kind, y in [
                ("times 100", x * 100),
                ("plus one", x + 1),
                ("sign", -x),
                ("relative 5e-5", x * (1 + 5e-5)),
                ("relative 1e-7", x * (1 + 1e-7)),
            ]:
                yield kind + ", float", y
            if isinstance(x, float):
                yield "rounded to 4 places", f"{x:.4f}"
    else:
        numbers = list(re.finditer(r"(?<![\d.^_{,])\d+(?![\d.])", answer))
        for m in numbers:
            for kind, new in [("plus one", str(int(m[0]) + 1)), ("times 100", m[0] + "00")]:
                if new != m[0] and int(m[0]):
                    yield kind + " inside", answer[: m.start()] + new + answer[m.end() :]
        if isinstance(value, Seq):
            if value.items[0] != value.items[-1]:
                yield (
                    "places exchanged",
                    "(" + ",".join(answer.strip("([)]").split(",")[::-1]) + ")"
                    if r"\left" not in answer
                    else "0",
                )
            yield "another bracket", answer[:-1] + {")": "]", "]": ")"}[answer[-1]]
        if not numbers:
            yield "another word", "zebra"


def check_rewrites(answers):
    """How many rewrites of each kind are accepted."""
    table = defaultdict(lambda: [0, 0, []])
    for answer in answers:
        for kind, other in rewrites(answer):
            row = table[kind]
            row[0] += 1
            if is_equivalent(other, answer):
                row[1] += 1
            else:
                row[2].append((other, answer))
    return dict(table)


def check_misses(answers):
    """How many near misses of each kind are refused."""
    table = defaultdict(lambda: [0, 0, []])
    for answer in answers:
        for kind, other in misses(answer):
            row = table[kind]
            row[0] += 1
            if not is_equivalent(other, answer):
                row[1] += 1
            else:
                row[2].append((other, answer))
    return dict(table)


def plain_value(answer):
    """A number for an answer that is one, by another road than the checker's: digits, or sympy."""
    if re.fullmatch(r"[\\\d.,!\s$-]+", answer):
        layout = r"\\text\{[^}]*\}|\^\\circ|\\!|\\\$|^\w=|(?<=\d),(?=\s?\d{3})|\s"
        text = re.sub(layout, "", answer)
    else:
        text = re.sub(r"\\text\{[^}]*\}|\^\\circ|^\w=", "", answer)
    if m := re.fullmatch(r"(\d+)_\{?(\d+)\}?", text):
        return complex(int(m[1], int(m[2])))
    try:
        return complex(float(text))
    except ValueError:
        pass
    if (
        re.search(r"[a-zA-Z](?![a-zA-Z]*[{\\ ])", re.sub(r"\\[a-z]+|i$", "", text))
        or "," in text
        or "pm" in text
        or "matrix" in text
    ):
        return None
    try:
        return complex(numeric(text))
    except Exception:
        return None


def check_strangers(answers):
    """Answers of other problems that differ in value: how many were tried, which called equal."""
    texts = sorted(set(answers))
    values = {t: plain_value(t) for t in texts}
    tried, wrong = 0, []
    for a in texts:
        for b in texts:
            if a == b:
                continue
            x, y = values[a], values[b]
            if x is not None and y is not None and abs(x - y) <= 1e-12 * max(abs(x), abs(y)):
                continue
            tried += 1
            if compare(a, b).verdict != "different" and is_equivalent(a, b):
                wrong.append((a, b))
    return tried, wrong


def score(pairs, accept):
    """Counts and precision and recall of a grader on labelled pairs."""
    counts = Counter((accept(p["given"], p["reference"]), p["equal"]) for p in pairs)
    tp = counts[True, True]
    fp = counts[True, False]
    fn = counts[False, True]
    tn = counts[False, False]
    return dict(
        accepted_right=tp,
        accepted_wrong=fp,
        refused_right=fn,
        refused_wrong=tn,
        precision=tp / max(1, tp + fp),
        recall=tp / max(1, tp + fn),
    )


def graders():
    judge = SecondOpinion(seconds=10)
    return {
        "ours": is_equivalent,
        "ours, without a second opinion": lambda g, r: compare(g, r).verdict == "equal",
        "math-verify alone": lambda g, r: judge.ask(as_text(g), r) is True,
    }


def show(table, verb):
    for kind, (n, good, bad) in sorted(table.items()):
        print(f"  {kind:32} {good:6}/{n:<6}", *[f"   e.g. {b[0]!r} for {b[1]!r}" for b in bad[:2]])
    tried = sum(n for n, _, _ in table.values())
    good = sum(good for _, good, _ in table.values())
    print(f"  {f'all {len(table)} kinds':32} {good:6}/{tried:<6} {verb}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=DATA)
    args = parser.parse_args()
    pairs = load_pairs()
    print(f"Python {platform.python_version()}, {platform.machine()}")
    print(f"\n{len(pairs)} hand-made pairs, {sum(p['equal'] for p in pairs)} of them equal")
    heads = ("right in", "wrong in", "right out", "precision", "recall")
    print(f"  {'grader':32}", *(f"{head:>10}" for head in heads))
    for name, accept in graders().items():
        s = score(pairs, accept)
        counts = (s["accepted_right"], s["accepted_wrong"], s["refused_right"])
        shares = (s["precision"], s["recall"])
        print(f"  {name:32}", *(f"{n:10}" for n in counts), *(f"{x:10.3f}" for x in shares))
    if (args.data / "gsm8k_dev.jsonl").exists():
        answers = load_answers(args.data)
        print(f"\nrewrites of {len(answers)} reference answers")
        show(check_rewrites(answers), "accepted")
        print("\nnear misses")
        show(check_misses(answers), "refused")
        tried, wrong = check_strangers(answers)
        print(
            f"\nanother problem's answer: {tried} ordered pairs that differ in value,",
            f"{len(wrong)} called equal",
            *wrong[:20],
        )
    print("\nmicroseconds a call")
    for name, pair in [
        ("int, int", (18, 18)),
        ("int, text", (18, "18")),
        ("float, int", (18.0, 18)),
        ("float, text", (2.5, "2.5")),
        ("float, fraction", (0.3333333333333333, r"\frac{1}{3}")),
        ("text, LaTeX radical", ("2*sqrt(113)", r"2\sqrt{113}")),
        ("formula with a variable", ("2*(k+1)", "2k+2")),
        ("tuple, text", ((15, -29), "(15,-29)")),
    ]:
        seconds = min(timeit.repeat(partial(is_equivalent, *pair), number=2000, repeat=3)) / 2000
        print(f"  {name:28} {seconds * 1e6:8.2f}")


if __name__ == "__main__":
    main()
