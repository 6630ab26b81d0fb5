import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rstar_nb.executor.result import Result
from rstar_nb.policy.steps import Candidate
from rstar_nb.search.agent import Agent, SearchOptions
from rstar_nb.search.mcts import backup, best_child, search, select
from rstar_nb.search.programs import add_program
from rstar_nb.search.tree import (
    ROOT,
    Node,
    Tree,
    add_children,
    check_invariants,
    replay,
    trajectories,
    tree_from_json,
    tree_to_json,
)
from rstar_nb.search.ucb import puct, uct
from rstar_nb.search.votes import likely_weight, vote
from standin import grow_trees

GOLDEN = Path(__file__).parent / "data" / "golden_trees.json"


@pytest.fixture(scope="module")
def trees():
    return grow_trees()


def test_golden_trees(trees):
    assert [tree_to_json(t) for t in trees] == json.loads(GOLDEN.read_text())


def test_json_round_trip(trees):
    for t in trees:
        assert tree_from_json(json.loads(json.dumps(tree_to_json(t)))) == t


def test_bad_json_is_refused():
    with pytest.raises(ValueError, match="not a search tree"):
        tree_from_json({"nodes": [{"colour": 1}]})


def test_replay_rebuilds_the_statistics(trees):
    for t in trees:
        again = replay(t, len(t.events))
        assert [
            (n.node_visits, n.value_sum, n.status, n.answer, n.children) for n in again.nodes
        ] == [(n.node_visits, n.value_sum, n.status, n.answer, n.children) for n in t.nodes]


def test_more_rollouts_go_on_from_fewer():
    once, twice = grow_trees(6, rollouts=8), grow_trees(6, rollouts=4)
    from rstar_nb.executor.pool import Executor
    from rstar_nb.problems.generator import generate
    from standin import StandIn

    problems = generate(6, "test", seed=5)
    with Executor(workers=2, preload=()) as executor:
        search(
            twice,
            Agent(StandIn(problems), executor),
            SearchOptions(rollouts=8),
            references={p.id: p.answer for p in problems},
        )
    for a, b in zip(once, twice):
        assert [n.node_visits for n in a.nodes] == [n.node_visits for n in b.nodes]


@pytest.mark.parametrize("rule", [uct, puct])
def test_invariants_of_real_searches(rule):
    for t in grow_trees(rule=rule):
        check_invariants(t)


def test_failed_steps_are_never_followed(trees):
    assert any(n.status != "ok" for t in trees for n in t.nodes), (
        "the stand-in should spoil some steps"
    )
    for t in trees:
        assert all(n.node_visits == 0 and n.children is None for n in t.nodes if n.status != "ok")


def random_tree(rng, rollouts, rule, branching=3, depth=4, skip_exhausted=True):
    """A tree grown on random rewards, without a policy or an executor."""
    t = Tree("random", "?")
    while t.rollouts < rollouts and not (skip_exhausted and t.nodes[ROOT].exhausted):
        node = select(t, rule, skip_exhausted)
        if t.nodes[node].children is None and not t.nodes[node].terminal and t.depth(node) < depth:
            last = t.depth(node) == depth - 1
            ids = add_children(
                t,
                node,
                [
                    f"answer = {i}" if last or rng.random() < 0.2 else f"x = {i}"
                    for i in range(rng.randint(0, branching))
                ],
                None,
            )
            for i in ids:
                if rng.random() < 0.2:
                    t.nodes[i].status = "error"
        if t.nodes[node].children and best_child(t, node, rule, skip_exhausted) is not None:
            t.cursor = node
        else:
            backup(t, node, rng.choice([-1.0, 1.0]))
    return t


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.sampled_from([uct, puct]), st.booleans())
def test_invariants_of_random_trees(seed, rollouts, rule, skip):
    check_invariants(random_tree(random.Random(seed), rollouts, rule, skip_exhausted=skip))


@pytest.mark.parametrize(
    "harm, message",
    [
        (lambda t: setattr(t.nodes[0], "children", t.nodes[0].children[:-1]), "nobody's child"),
        (lambda t: setattr(t.nodes[t.nodes[0].children[0]], "parent", 99), "another parent"),
        (lambda t: setattr(t.nodes[0], "node_visits", t.nodes[0].node_visits + 1), "visits"),
        (lambda t: setattr(t.nodes[0], "value_sum", 1e6), "value"),
    ],
)
def test_broken_trees_are_noticed(trees, harm, message):
    t = tree_from_json(json.loads(json.dumps(tree_to_json(max(trees, key=lambda t: len(t.nodes))))))
    check_invariants(t)
    harm(t)
    with pytest.raises(AssertionError, match=message):
        check_invariants(t)


def bandit(rollouts, rule, means=(0.2, 0.5, 0.8), seed=0):
    """One choice at the root, three leaves that pay +1 with different probability."""
    rng, t = random.Random(seed), Tree("bandit", "?")
    leaves = add_children(t, ROOT, [f"answer = {i}" for i in range(len(means))])
    for _ in range(rollouts):
        node = select(t, rule, skip_exhausted=False)
        backup(t, node, 1.0 if rng.random() < means[node - leaves[0]] else -1.0)
    return [t.nodes[i].node_visits for i in leaves]


def test_visit_share_of_the_best_branch_grows():
    def share(rollouts):
        return sum(bandit(rollouts, uct, seed=s)[2] for s in range(20)) / (20 * rollouts)

    few, some, many = share(12), share(120), share(1200)
    assert few < some < many and many > 0.6


def test_uct_visits_every_root_child_before_any_twice():
    for n in range(1, 9):
        t = Tree("wide", "?")
        leaves = add_children(t, ROOT, [f"answer = {i}" for i in range(8)])
        for _ in range(n):
            backup(t, select(t, uct, skip_exhausted=False), 1.0)
        assert sorted(t.nodes[i].node_visits for i in leaves) == [0] * (8 - n) + [1] * n


def test_the_same_with_a_policy_behind_it(trees):
    cases = 0
    for t in trees:
        for k in [k for k, e in enumerate(t.events) if e["kind"] == "backup"]:
            then = replay(t, k + 1)
            running = [
                then.nodes[c] for c in then.nodes[ROOT].children if then.nodes[c].status == "ok"
            ]
            if any(n.node_visits == 0 for n in running):
                assert max(n.node_visits for n in running) <= 1
                cases += 1
    assert cases > 5


def test_vote_weighs_trajectories():
    t = Tree("v", "?")
    for i, (answer, ppm) in enumerate([(1, -0.9), (1, -0.9), (2, 0.9)]):
        t.nodes.append(Node(i + 1, 0, f"answer = {answer}", answer=answer, node_visits=1, ppm=ppm))
    t.nodes[0].children = [1, 2, 3]
    assert vote(t) == 1
    assert vote(t, lambda x: (x["ppm"] + 1) / 2) == 2
    for n, logprob in zip([n for n in t.nodes if n.terminal], (-9.0, -8.0, -1.0)):
        n.logprob = logprob
    assert vote(t, likely_weight) == next(n.answer for n in t.nodes if n.logprob == -1.0)
    assert vote(Tree("empty", "?")) is None and trajectories(Tree("empty", "?")) == []


programs = st.lists(
    st.tuples(
        st.lists(st.sampled_from(["a = 1", "b = 2", "c = 3"]), max_size=3),
        st.sampled_from(["", "answer = 3", "answer = 4"]),
    ),
    max_size=12,
)


@given(programs)
@settings(max_examples=80, deadline=None)
def test_whole_programs_join_a_tree(drawn):
    tree, ran = Tree("p", "?"), 0
    for steps, last in drawn:
        steps = steps + [last] * bool(last)
        status = (
            "timeout" if steps[-1:] == ["c = 3"] else "ok"
        )  # as if it ran out of time by chance: longer programs get over it
        answer = int(last[-1]) if last and status == "ok" else None
        leaf = add_program(
            tree,
            Candidate("\n\n".join(steps), -1.0, tuple(range(5)), True, begun=2),
            Result(status, answer, "", None, 0.0),
            reference="3",
        )
        assert tree.steps(leaf) == steps
        ran += status == "ok" and bool(steps)
    check_invariants(tree)
    assert (tree.rollouts, tree.tokens) == (ran, 3 * len(drawn))
    again = replay(tree, len(tree.events))
    assert [
        (n.step, n.node_visits, n.value_sum, n.status, n.answer, n.children) for n in again.nodes
    ] == [(n.step, n.node_visits, n.value_sum, n.status, n.answer, n.children) for n in tree.nodes]
    right = {tuple(steps) for steps, last in drawn if last == "answer = 3"}
    assert {tuple(x["steps"][:-1]) for x in trajectories(tree) if x["correct"]} == right
