import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standin import StandInPPM, golden_trees, grow_trees

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
from rstar_nb.search.votes import agreed, likely_weight, one_each, vote

GOLDEN = Path(__file__).parent / "data" / "golden_trees.json"


@pytest.fixture(scope="module")
def trees():
    return golden_trees()


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
    from standin import StandIn

    from rstar_nb.executor.pool import Executor
    from rstar_nb.problems.generator import generate

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

    shares = [share(rollouts) for rollouts in (12, 120, 1200)]
    assert shares[0] < shares[1] < shares[2] and shares[2] > 0.6


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


class Fixed:
    """A policy that proposes the same steps, the first the most likely, and their executor."""

    def __init__(self, steps):  # step -> answer, or None where it has none
        self.steps = steps

    def propose(self, prefixes, k, seeds, temperature=1.0, top_k=0):
        return [
            [Candidate(s, -float(i), (1,), True) for i, s in enumerate(self.steps)]
            for _ in prefixes
        ]

    def run(self, programs):
        last = [p.split("\n\n")[-1] for p in programs]
        return [Result("ok", self.steps[step], "", None, 0.0) for step in last]


def search_fixed(steps, references, ppm=None, **options):
    fixed = Fixed(steps)
    (tree,) = search(
        [Tree("p", "?")], Agent(fixed, fixed, ppm), SearchOptions(**options), references
    )
    return tree


def test_a_program_counts_as_finished_when_it_has_run_visited_or_not():
    steps = {"answer = 3": 3, "answer = 4": 4, "answer = 5": 5}
    tree = search_fixed(steps, {"p": "4"}, rollouts=1)
    assert [n.node_visits for n in tree.nodes] == [1, 1, 0, 0]
    assert [
        (x["answer"], x["correct"], x["visits"], x["average_q"]) for x in trajectories(tree)
    ] == [
        (3, False, 1, -1.0),
        (4, True, 0, 1.0),
        (5, False, 0, -1.0),
    ]
    assert replay(tree, len(tree.events)).nodes == [replace(n, exhausted=False) for n in tree.nodes]


def voters(*answers):
    """A tree of finished programs with these answers, the first the most likely."""
    tree = Tree("p", "?")
    steps = [f"answer = {i}" for i in range(len(answers))]
    add_children(tree, ROOT, steps, [-float(i) for i in range(len(answers))])
    for n, answer in zip(tree.nodes[1:], answers, strict=True):
        n.answer = answer
    return tree


def test_a_vote_is_decided_when_one_answer_has_its_share_of_the_weight():
    def decided(answers, share, **options):
        return agreed(voters(*answers), share, weight=one_each, **options)

    assert decided([7, 7, 7, 8], 0.75) and not decided([7, 7, 7, 8], 0.76)
    assert decided([8, 7, 7, 7.0], 0.75)  # whichever came first; equal answers are one
    assert not decided([], 0.5) and not decided([7], 0.5)  # one program agrees with itself
    assert decided([7], 0.5, programs=1) and not decided([7, 7], 0.5, programs=3)
    # A program without an answer has no vote, and an answer that nobody gave is none.
    assert not decided([7, None], 0.5) and decided([None, 7, 7], 1.0)
    # By likelihood the first of two outweighs the other by a factor of sqrt(e), 62 % to 38 %.
    assert agreed(voters(7, 8), 0.6) and not agreed(voters(7, 8), 0.65)
    assert not agreed(voters(7, 8)) and agreed(voters(7, 7))


def test_at_test_time_nothing_is_graded():
    tree = search_fixed({"answer = 3": 3, "answer = 4": 4}, None, rollouts=1)
    assert [(x["answer"], x["correct"], x["average_q"]) for x in trajectories(tree)] == [
        (3, None, 0.0),
        (4, None, 0.0),
    ]


def test_a_program_without_an_answer_or_one_that_has_not_run_is_not_finished():
    tree = Tree("p", "?")
    add_children(tree, ROOT, ["answer = 3", "answer = None", "x = 1"])
    assert trajectories(tree) == []
    tree.nodes[1].answer = 3
    assert [x["node"] for x in trajectories(tree)] == [1]


def test_an_unvisited_program_has_the_outcome_of_its_own_grading():
    tree = Tree("p", "?")
    add_program(tree, Candidate("a = 1\n\nanswer = 3", -1.0, (1,), True), RAN_3, reference="4")
    add_children(tree, 1, ["answer = 4", "answer = 5"])
    tree.nodes[1].children = [2, 3, 4]  # the first visited, the others ran
    for node, answer, correct in ((3, 4, True), (4, 5, False)):
        tree.nodes[node].answer, tree.nodes[node].correct = answer, correct
    by_node = {x["node"]: x["average_q"] for x in trajectories(tree)}
    assert by_node == {2: -1.0, 3: (-1 + 1) / 2, 4: (-1 - 1) / 2}
    assert trajectories(tree, wrong_reward=0.0)[2]["average_q"] == (-1 + 0) / 2


RAN_3 = Result("ok", 3, "", None, 0.0)


class Always:
    """A PPM with one opinion."""

    def __init__(self, score):
        self.value = score

    def score(self, prefixes):
        return [self.value for _ in prefixes]


def test_the_average_of_a_trajectory_comes_from_outcomes_and_not_from_the_ppm():
    tree = search_fixed({"answer = 3": 3}, {"p": "3"}, Always(-1.0), rollouts=1)
    (right,) = trajectories(tree)
    assert tree.nodes[1].q_value == 0.0  # of selection: one rollout of +1, one opinion of -1
    assert (right["average_q"], tree.nodes[1].mean_reward) == (1.0, 1.0)


@pytest.mark.parametrize("ppm", [None, StandInPPM()])
@pytest.mark.parametrize("rule", [uct, puct])
def test_a_parent_is_visited_as_often_as_its_children_together(rule, ppm):
    """What a rule is told of the parent is the sum of what it is told of the children."""
    seen = []

    def spy(q, visits, parent_visits, prior):
        seen.append((visits, parent_visits))
        return rule(q, visits, parent_visits, prior)

    for tree in grow_trees(6, ppm=ppm):
        for node in tree.nodes:
            if any(tree.nodes[i].status == "ok" for i in node.children or ()):
                seen.clear()
                best_child(tree, node.id, spy, skip_exhausted=False)
                assert {parent for _, parent in seen} == {sum(visits for visits, _ in seen)}


def test_a_search_needs_no_torch():
    """Trees can be grown and read where no model is installed; only `discrepancies` needs one."""
    modules = "ucb agent tree mcts votes programs thoughts choices beam strategies standins".split()
    imports = "; ".join(f"import rstar_nb.search.{m}" for m in modules)
    check = f"{imports}; import sys; print(sorted({{'torch', 'transformers'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_options_reach_the_policy_and_the_reward():
    class Asked(Fixed):
        calls = []

        def propose(self, prefixes, k, seeds, temperature=1.0, top_k=0):
            self.calls.append((k, temperature, top_k))
            return super().propose(prefixes, k, seeds)

    policy = Asked({"answer = 3": 3})
    options = SearchOptions(rollouts=1, candidates=7, temperature=1.5, top_k=4, wrong_reward=-0.5)
    (tree,) = search([Tree("p", "?")], Agent(policy, policy), options, {"p": "4"})
    assert policy.calls == [(7, 1.5, 4)] and tree.nodes[ROOT].value_sum == -0.5
