"""The four rollouts that lesson 05 carries out by hand: its tables against the search."""

import json
import math
import re
from pathlib import Path

import pytest

from rstar_nb.executor.pool import Executor
from rstar_nb.search.agent import Agent, SearchOptions
from rstar_nb.search.mcts import search
from rstar_nb.search.on_paper import MULTIPLES, RecordedPolicy, RecordedPPM, changes, choices
from rstar_nb.search.tree import ROOT, Tree, check_invariants
from rstar_nb.search.ucb import puct

LESSON = Path(__file__).resolve().parent.parent / "nbs" / "05_search.ipynb"
HALF = 0.005 + 1e-9  # numbers are written with two decimals
CHOICES, CHANGES, WITH_PUCT = "UCT", "Q after", "PUCT"  # a column that names the kind of table


def lesson_text():
    cells = json.loads(LESSON.read_text())["cells"]
    markdown = ("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return "\n\n".join(markdown)


def section(text, heading):
    """What stands under a heading, up to the next one."""
    (found,) = re.findall(rf"^### {heading}\b.*?$(.*?)(?=^#|\Z)", text, re.M | re.S)
    return found


def written(text, column):
    """The rows of each Markdown table that has such a column, as lists of texts."""
    for block in re.findall(r"(?:^\|.*\|$\n?)+", text, re.M):
        head, _, *rows = [
            [x.strip() for x in line.removeprefix("|").removesuffix("|").split("|")]
            for line in block.splitlines()
        ]
        if column in head:
            yield rows


def wrong_choices(rows, chosen, third="ppm"):
    """What in a table of choices is not what the search saw."""
    assert len(rows) == len(chosen)
    at = total = None
    for (place, child, *numbers, mark), c in zip(rows, chosen, strict=True):
        if place:
            at, total = re.fullmatch(r"(\w+), N = (\d+)", place).groups()
        siblings = [x.visits for x in chosen if x.at == c.at]
        if (at, child, mark, int(total)) != (c.at, c.child, c.mark, sum(siblings)):
            yield place, child, mark, total
        (prior,) = [r.prior for r in MULTIPLES if r.name == c.child]
        right = (prior if third == "prior" else c.ppm, c.visits, c.q, c.bonus, c.score)
        for mine, number in zip(numbers, right, strict=True):
            if abs(float(mine) - number) > HALF:
                yield child, mine, number


def wrong_changes(rows, changed):
    """What in a table of changes is not what the search did."""
    assert len(rows) == len(changed)
    for (node, *numbers), c in zip(rows, changed, strict=True):
        if node != c.node:
            yield node, c.node
        for mine, number in zip(numbers, (*c.visits, *c.q), strict=True):
            if abs(float(mine) - number) > HALF:
                yield node, mine, number


@pytest.fixture(scope="module")
def tree():
    tree = Tree("multiples", "How many multiples of 3 are there below 100?")
    with Executor(workers=1, preload=()) as executor:
        agent = Agent(RecordedPolicy(MULTIPLES), executor, RecordedPPM(MULTIPLES))
        search([tree], agent, SearchOptions(rollouts=4), {"multiples": "33"})
    return tree


@pytest.mark.parametrize("rollout", [1, 2, 3, 4])
def test_a_rollout_by_hand_is_the_rollout_of_the_search(tree, rollout):
    text = section(lesson_text(), f"Rollout {rollout}")
    (chosen,), (changed,) = written(text, CHOICES), written(text, CHANGES)
    assert not list(wrong_choices(chosen, choices(tree, rollout)))
    assert not list(wrong_changes(changed, changes(tree, rollout)))


def test_the_first_choice_with_puct(tree):
    (rows,) = written(lesson_text(), WITH_PUCT)
    seen = [c for c in choices(tree, 1, rule=puct) if c.at == "root"]
    best = max(seen, key=lambda c: c.score)
    seen = [c._replace(mark="taken" if c is best else "") for c in seen]
    assert not list(wrong_choices(rows, seen, third="prior"))


@pytest.mark.parametrize("rollout", [1, 2, 3, 4])
def test_the_tables_keep_to_the_formula(rollout):
    """Without the package: Q + 2 sqrt(ln N / n), and the best that is not closed is taken."""
    (rows,) = written(section(lesson_text(), f"Rollout {rollout}"), CHOICES)
    choices_made = []  # for each a list of (score, mark)
    for place, _, _, n, q, bonus, score, mark in rows:
        if place:
            total = int(place.split()[-1])
            choices_made.append([])
        choices_made[-1].append((float(score), mark))
        assert abs(2 * math.sqrt(math.log(total) / int(n)) - float(bonus)) <= HALF
        assert abs(float(q) + float(bonus) - float(score)) <= 2 * HALF
    for made in choices_made:
        assert max(x for x in made if x[1] != "closed")[1] == "taken"


@pytest.mark.parametrize(
    "right, wrong", [("| 2.95 | taken", "| 2.96 | taken"), ("| D1 | 0 | 1 |", "| D1 | 0 | 2 |")]
)
def test_a_wrong_number_is_noticed(tree, right, wrong):
    text = section(lesson_text(), "Rollout 1")
    assert text.count(right) == 1
    text = text.replace(right, wrong)
    (chosen,), (changed,) = written(text, CHOICES), written(text, CHANGES)
    mistakes = [*wrong_choices(chosen, choices(tree, 1)), *wrong_changes(changed, changes(tree, 1))]
    assert len(mistakes) == 1


def test_the_search_on_paper_is_a_search(tree):
    check_invariants(tree)
    assert [n.answer for n in tree.nodes if n.node_visits and n.terminal] == [34, 33, 27, 33]
    assert [n.status for n in tree.children(ROOT)] == ["ok"] * 4 + ["error"]
    assert "floor" in tree.nodes[5].error
