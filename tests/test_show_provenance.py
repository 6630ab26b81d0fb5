"""Where a branch came from: what the log says, against what the search did."""

import json
import re

import pytest

from rstar_nb.evolve.base import shipped_base
from rstar_nb.executor.pool import Executor
from rstar_nb.problems.generator import generate
from rstar_nb.search import second_thoughts as module
from rstar_nb.search.agent import Agent, SearchOptions
from rstar_nb.search.mcts import backup, search
from rstar_nb.search.tree import Node, Tree, add_children, tree_from_json, tree_to_json
from rstar_nb.search.ucb import puct
from rstar_nb.show.labels import words_of
from rstar_nb.show.page import tree_page
from rstar_nb.show.provenance import branch_names, departure, origins
from rstar_nb.show.trees import show_tree, tree_text
from rstar_nb.show.widget import viewer_data

HOSTILE = "</script><script>window.hacked = 1</script>"


@pytest.fixture(scope="module")
def policy():
    return shipped_base()


@pytest.fixture(scope="module")
def grown(policy):
    """Trees of second thoughts, and for each what was taken: (rollout, node, `Untried`)."""
    problems = generate(4, "test", levels=[2, 3], kind="sto")
    trees = [Tree(p.id, p.question) for p in problems]
    taken = {p.id: [] for p in problems}

    def spy(tree, node):
        untried = take(tree, node)
        taken[tree.problem_id].append((tree.rollouts + 1, node, untried))
        return untried

    take = module.take
    options = SearchOptions(
        rollouts=8, candidates=8, rule=puct, expansion=module.second_thoughts, seed=1
    )
    with pytest.MonkeyPatch.context() as patch, Executor(workers=1, preload=()) as executor:
        patch.setattr(module, "take", spy)
        search(trees, Agent(policy, executor), options, {p.id: p.answer for p in problems})
    return [(t, taken[t.problem_id]) for t in trees]


def test_every_node_has_an_origin_and_every_branch_a_number(grown):
    for tree, _ in grown:
        found = origins(tree)
        assert set(found) == set(range(1, len(tree.nodes)))
        begun = {i for i, o in found.items() if o.begins}
        assert set(branch_names(tree)) == begun
        for i, o in found.items():
            parent = tree.nodes[i].parent
            if i not in begun:
                assert found[parent].rollout == o.rollout and o.way == "greedy"
            assert o.rollout >= max([1, *(found[j].rollout for j in tree.path(parent)[1:])])


def test_an_other_token_is_the_one_that_was_taken(grown, policy):
    seen = 0
    for tree, taken in grown:
        for i, o in origins(tree).items():
            n = tree.nodes[i]
            ids = [u.ids for k, node, u in taken if (k, node) == (o.rollout, n.parent) and u.ids]
            begun = [policy.decode([x])[0].lstrip("\n") for x in ids]
            matches = [k for k, text in enumerate(begun) if n.step.startswith(text.rstrip())]
            if o.way != "other token":
                continue
            assert matches, f"node {i}: {o}, but nothing like it was taken"
            text = begun[matches[-1]]
            shared = policy.decode([ids[matches[-1]][:-1]])[0].lstrip("\n")
            places = [m.start() for m in re.finditer(re.escape(o.place.rstrip("…")), n.step)]
            # The token that is another begins in the word that is shown first.
            assert any(
                place <= len(text) and len(shared) <= place + len(words_of(n.step[place:])[0]) + 1
                for place in places
            )
            seen += 1
    assert seen > 8


def test_the_first_rollout_is_greedy_and_later_branches_are_not(grown):
    for tree, _ in grown:
        found = origins(tree)
        assert str(found[1]) == "rollout 1, greedy"
        first = [o for i, o in found.items() if tree.nodes[i].parent == 0]
        assert [o.way for o in first] == ["greedy"] + ["other token"] * (len(first) - 1)
    assert any(o.rollout > 1 for t, _ in grown for o in origins(t).values())


def test_a_tree_read_from_a_file_has_the_same_origins(grown):
    for tree, _ in grown:
        read = tree_from_json(json.loads(json.dumps(tree_to_json(tree))))
        assert origins(read) == origins(tree)


def sampled(*steps):
    """A tree whose only rollout drew these steps."""
    tree = Tree("drawn", "any question")
    tree.log("select", path=[0])
    tree.log("expand", node=0, children=add_children(tree, 0, steps))
    backup(tree, 1, 1.0)
    return tree


def test_sampled_children_belong_to_the_rollout_that_drew_them():
    tree = sampled("x = 12 - 6", "x = 12 + 6")
    tree.log("select", path=[0, 2])
    tree.log("expand", node=2, children=add_children(tree, 2, ["answer = x"]))
    tree.nodes[3].answer = 18
    backup(tree, 3, -1.0)
    assert [str(o) for o in origins(tree).values()] == [
        "rollout 1, sampled",
        "rollout 1, sampled",
        "rollout 2, sampled",
    ]
    assert branch_names(tree) == {1: "r1", 2: "r1", 3: "r2"}
    assert "r2 answer = x" in tree_text(tree) and "r1 x = 12 «-» 6" in tree_text(tree)
    drawn = [a.get_text() for ax in show_tree(tree).figure.axes for a in ax.texts]
    assert drawn.count("r1") == 2 and drawn.count("r2") == 1


def test_without_rollouts_or_with_a_broken_log_nothing_is_claimed():
    by_hand = Tree("hand", "any question")
    add_children(by_hand, 0, ["x = 1"])
    assert origins(by_hand) == {}
    by_hand.events = [{}, dict(kind="select"), dict(kind="expand", children=[7, "1", None, -1])]
    assert origins(by_hand) == {}
    by_hand.events.append(dict(kind="expand", children=None))
    assert origins(by_hand) == {} and show_tree(by_hand).png()


@pytest.mark.parametrize(
    "step, earlier, place",
    [
        ("left = 12 - 6", ["left = 12 + 6"], "- 6"),
        ("# a\nx = 1\ny = 2", ["# a\nx = 3\ny = 2"], "1"),
        ("x = 1", ["x = 1 + 2"], "the end"),
        ("x = 1", [], "x = 1"),
        ("x = 15", ["y = 2", "x = 1"], "15"),
        ("x = " + "long_" * 20, ["x = 1"], ("long_" * 20)[:23] + "…"),
    ],
)
def test_departure(step, earlier, place):
    assert departure(step, earlier) == place


def test_the_viewer_says_where_a_step_came_from(grown):
    tree, _ = grown[0]
    nodes = viewer_data(tree)["nodes"]
    assert "origin" not in nodes[0]
    for i, o in origins(tree).items():
        assert nodes[i]["origin"] == str(o) and nodes[i]["branch"] == branch_names(tree).get(i, "")


def test_hostile_text_in_bold_pieces_and_origins_stays_text():
    """What differs and what was taken are written by a model, too."""
    tree = Tree("hostile", "any question")
    tree.log("select", path=[0])
    odd = ("x = $\\frac{$", "x = 100% \\alpha_a_^ \ud800")  # the first is bad mathematics
    for step in ("x = 1", f"x = {HOSTILE}", *odd):
        tree.log("expand", node=0, children=[len(tree.nodes)], calls=1)
        child = Node(len(tree.nodes), 0, step)
        tree.nodes.append(child)
        tree.nodes[0].children = [*(tree.nodes[0].children or ()), child.id]
    assert HOSTILE[:20] in origins(tree)[2].place
    data = viewer_data(tree)
    assert any(
        bold and "<script" in text for line in data["nodes"][2]["label"] for text, bold in line
    )
    page = tree_page(tree)
    assert page.count("<script") == 2 and page.count("</script") == 2
    svg = show_tree(tree).svg()
    assert "<script" not in svg and "&lt;" in svg
    assert show_tree(tree).png()[:4] == b"\x89PNG"
    # Dollar signs and backslashes are drawn as they are, not as mathematics.
    assert any(a.get_text() == odd[0][4:] for ax in show_tree(tree).figure.axes for a in ax.texts)
