"""Strategies: what they spend, what they choose, and what they never see."""

import inspect
import re
from dataclasses import replace

import pytest
from standin import StandIn

from rstar_nb.executor.result import Result
from rstar_nb.problems.generator import generate, gold_program
from rstar_nb.search.agent import Agent, SearchOptions
from rstar_nb.search.beam import gather_beam
from rstar_nb.search.choices import (
    best,
    majority,
    path_visits,
    ppm_last,
    ppm_mean,
    ppm_min,
    weight_by_ppm,
)
from rstar_nb.search.strategies import STRATEGIES, find_strategy, gather_mcts, gather_samples, think
from rstar_nb.search.thoughts import Program, Thought
from rstar_nb.search.tree import check_invariants, trajectories

PROBLEMS = generate(10, "test", seed=3)
OPTIONS = SearchOptions(candidates=4, max_depth=9)
# What a stand-in can play: it has no tokens whose runners-up it could name.
PLAYABLE = [name for name, strategy in STRATEGIES.items() if not strategy.runners_up]
QUESTIONS = [(p.id, p.question) for p in PROBLEMS]


class Policy(StandIn):
    """The stand-in, with a tally of what it wrote and read for each question."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.wrote, self.read, self.calls = {}, {}, 0

    def encode(self, question, steps=()):
        return " ".join([question, *steps]).split()

    def propose(self, prefixes, k, seeds, temperature=1.0, top_k=0, whole=False):
        proposed = super().propose(prefixes, k, seeds, temperature, top_k, whole)
        self.calls += 1
        for (q, steps), candidates in zip(prefixes, proposed, strict=True):
            self.wrote.setdefault(q, []).append([len(c.ids) for c in candidates])
            self.read[q] = self.read.get(q, 0) + len(self.encode(q, steps))
        return proposed


class Scorer:
    """A score that follows from the text; a tally of what was read for each question."""

    def __init__(self, policy):
        self.policy, self.read, self.calls = policy, {}, 0

    def score(self, prefixes):
        self.calls += 1
        beginnings = set()
        for q, steps in prefixes:
            before = len(self.policy.encode(q, steps[:-1]))
            self.read[q] = (
                self.read.get(q, 0)
                + len(self.policy.encode(q, steps))
                - ((q, *steps[:-1]) in beginnings) * before
            )
            beginnings.add((q, *steps[:-1]))
        return [(sum(map(ord, "".join(steps))) % 201 - 100) / 100 for _, steps in prefixes]


class Calculator:
    """Stands for the executor: the answer is the length of the program.

    Whoever ran it for real would find another.
    """

    def run(self, programs):
        return [
            Result("ok", len(p), "", None, 0.0)
            if "missing" not in p
            else Result("error", None, "", "NameError", 0.0)
            for p in programs
        ]


def fresh(**changes):
    """An agent with tallies at zero."""
    policy = Policy(PROBLEMS)
    parts = dict(policy=policy, executor=Calculator(), ppm=Scorer(policy), orm=Scorer(policy))
    return Agent(**{**parts, **changes})


@pytest.mark.parametrize("name", PLAYABLE)
def test_tokens_reported_are_those_spent(name):
    agent = fresh()
    for t in think(name, QUESTIONS, agent, 150):
        wrote = agent.policy.wrote[t.question]
        if name == "greedy" or "/" in name and not name.startswith("best_of_n"):
            assert t.tokens.generated == sum(map(sum, wrote))
        else:
            assert (
                sum(map(sum, wrote[:-1])) < t.tokens.generated <= sum(map(sum, wrote))
            )  # the rest of the last block was never needed
        assert t.tokens.prefix == agent.policy.read[t.question]
        assert t.tokens.scored == agent.ppm.read.get(t.question, 0) + agent.orm.read.get(
            t.question, 0
        )


@pytest.mark.parametrize("name", PLAYABLE)
def test_answers_come_from_the_executor_and_are_the_same_alone_or_together(name):
    together = think(name, QUESTIONS, fresh(), 150)
    agent = fresh()
    alone = [think(name, [q], agent, 150)[0] for q in QUESTIONS]
    assert [(t.tokens, t.chosen, t.programs) for t in together] == [
        (t.tokens, t.chosen, t.programs) for t in alone
    ]
    assert any(t.chosen for t in together)
    for t in together:
        for p in t.programs:
            assert p.answer == len("\n\n".join(p.steps))


def test_no_strategy_is_given_a_reference():
    assert "references" not in inspect.signature(think).parameters
    assert not {"answer", "reference"} & {f for f in Thought.__dataclass_fields__}


def test_samples_begin_while_tokens_are_left_and_small_budgets_begin_large_ones():
    small, large = (
        {t.id: t for t in gather_samples(QUESTIONS, fresh(), b, OPTIONS)} for b in (60, 400)
    )
    for problem_id, t in small.items():
        assert t.programs == large[problem_id].programs[: len(t.programs)]
        assert t.tokens.generated >= 60 and large[problem_id].tokens.generated >= 400
    assert sum(len(t.programs) for t in small.values()) * 2 < sum(
        len(t.programs) for t in large.values()
    )
    longest = {
        p.id: len(" ".join(gold_program(p.id)).split()) + 2 * p.level for p in PROBLEMS
    }  # a spoiled step is two words longer
    assert all(t.tokens.generated < 60 + longest[problem_id] for problem_id, t in small.items())


def test_mcts_expands_only_while_tokens_are_left():
    for t in gather_mcts(QUESTIONS, fresh(), 150, replace(OPTIONS, candidates=3)):
        assert t.tokens.generated >= 150
        spent = 0
        for tree in t.trees:
            check_invariants(tree)
            assert (
                tree is t.trees[-1] or tree.nodes[0].exhausted
            )  # another tree begins only when nothing is left to try
            spent += tree.tokens
        last = t.trees[-1]
        final = [e for e in last.events if e["kind"] == "expand"][-1]
        assert (
            spent - sum(len(last.nodes[i].step.split()) for i in final["children"]) - 3 * 40 < 150
        )


def test_another_tree_begins_when_everything_was_tried():
    # One candidate: a tree is a single path, tried in one rollout.
    thoughts = gather_mcts(QUESTIONS, fresh(), 400, replace(OPTIONS, candidates=1))
    assert all(len(t.trees) > 2 for t in thoughts)
    assert any(len({tuple(p.steps) for p in t.programs}) > 1 for t in thoughts), (
        "later trees repeat the first"
    )


def test_a_question_is_left_between_rollouts_when_its_tree_has_enough():
    def two_programs(tree):
        assert tree.cursor == 0, "asked in the middle of a rollout"
        return len(trajectories(tree)) >= 2

    whole = gather_mcts(QUESTIONS, fresh(), 400, OPTIONS)
    early = gather_mcts(QUESTIONS, fresh(), 400, replace(OPTIONS, enough=two_programs))
    left = 0
    for long, short in zip(whole, early, strict=True):
        assert len(short.trees) == 1 or not two_programs(short.trees[0])
        assert short.tokens.generated <= long.tokens.generated
        left += short.tokens.generated < long.tokens.generated
    assert left >= len(QUESTIONS) // 2


def test_a_tree_that_can_never_grow_ends():
    class Mute(Policy):
        def propose(self, prefixes, k, seeds, temperature=1.0, top_k=0):
            return [[] for _ in prefixes]

    agent = fresh(policy=Mute(PROBLEMS))
    (t,) = gather_mcts(QUESTIONS[:1], agent, 100, OPTIONS, most_trees=5)
    assert len(t.trees) == 5 and not t.programs
    (t,) = gather_beam(QUESTIONS[:1], agent, 100, OPTIONS)
    assert not t.programs


def test_beam_is_wider_when_the_budget_is_larger_and_stays_within_it():
    widths = []
    for budget in (150, 900):
        widest = 0
        for t in gather_beam(QUESTIONS, fresh(), budget, OPTIONS):
            first = t.trees[0].tokens
            assert t.tokens.generated <= max(first, budget) + 4 * 40
            for tree in t.trees:
                by_depth = {}
                for e in tree.events:
                    if e["kind"] == "expand":
                        by_depth[tree.depth(e["node"])] = by_depth.get(tree.depth(e["node"]), 0) + 1
                widest = max(widest, *by_depth.values())
                kept = [
                    e["node"]
                    for e in tree.events
                    if e["kind"] == "expand" and tree.depth(e["node"]) == 1
                ]
                others = [
                    n.ppm
                    for n in tree.nodes
                    if n.parent == 0 and n.status == "ok" and not n.terminal and n.id not in kept
                ]
                if kept and others:
                    assert min(tree.nodes[i].ppm for i in kept) >= max(others)
        widths.append(widest)
    assert widths[0] <= 2 < widths[1]


def test_choices_by_hand():
    a, b, c, d = (
        Program(["x"], 33),
        Program(["x", "y"], 27),
        Program(["x"], 33.0),
        Program(["x"], 27),
    )
    for p, scores in ((a, {1: -0.2}), (b, {1: -0.5, 2: 0.9}), (c, {1: -0.4}), (d, {1: -1.0})):
        p.scores = scores
    assert majority([a, b, c]) is a and majority([b, a]) is b and majority([]) is None
    assert majority([a, b, c], weight_by_ppm) is b  # 0.4 + 0.3 < 0.95
    assert (best([a, b, c], ppm_last), best([a, b, c], ppm_min), best([a, b, c], ppm_mean)) == (
        b,
        a,
        b,
    )
    assert best([], ppm_last) is None


def test_strategies_on_the_same_samples_draw_and_read_them_once():
    agent, memo = fresh(), {}
    for name in ("majority", "best_of_n/ppm_last", "best_of_n/ppm_vote"):
        think(name, QUESTIONS, agent, 150, memo=memo)
    alone = fresh()
    think("majority", QUESTIONS, alone, 150)
    assert agent.policy.calls == alone.policy.calls
    repeated = think("best_of_n", QUESTIONS, agent, 150, memo=memo)
    for t in repeated:  # a program drawn twice is read once, and what siblings have in common too
        programs = {tuple(p.steps) for p in t.programs}
        assert t.tokens.scored == sum(len(s.split()) for s in (p[-1] for p in programs)) + sum(
            len(agent.policy.encode(t.question, s)) for s in {p[:-1] for p in programs}
        )
    assert all(t.tokens.scored == 0 for t in think("majority", QUESTIONS, agent, 150, memo=memo)), (
        "one strategy's reading was charged to another"
    )


def test_nothing_chosen_where_nothing_ran():
    class Broken:
        def run(self, programs):
            return [Result("error", None, "", "NameError", 0.0) for _ in programs]

    agent = fresh(executor=Broken())
    for name in PLAYABLE:
        for t in think(name, QUESTIONS[:3], agent, 40):
            assert t.chosen is None and not t.programs


def test_names_and_missing_models():
    assert (
        find_strategy("mcts").name == "mcts/uct/vote"
        and find_strategy("best_of_n").name == "best_of_n/ppm_last"
    )
    bare = fresh(ppm=None, orm=None)
    for bad, budget, message in (
        ("mct", 60, "unknown strategy 'mct'"),
        ("beam", 60, "needs a PPM; give Agent(..., ppm=...)"),
        ("best_of_n/orm", 60, "needs an ORM; give Agent(..., orm=...)"),
        ("majority", 0, "buys nothing"),
        ("second_thoughts", 60, "needs a policy that names its runners-up"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            think(bad, QUESTIONS, bare, budget)
    assert len(think("mcts", QUESTIONS, bare, 60)) == len(QUESTIONS)


@pytest.mark.parametrize(
    "bad, message",
    [
        (dict(rollouts=0), "rollouts=0: give a whole number of 1 or more"),
        (dict(candidates=0), "candidates=0: give a whole number of 1 or more"),
        (dict(candidates=2.5), "candidates=2.5: give a whole number of 1 or more"),
        (dict(max_depth=-1), "max_depth=-1: give a whole number of 1 or more"),
        (dict(top_k=-1), "top_k=-1: give a whole number of 0 or more"),
        (dict(temperature=-1), "temperature=-1: give 0 or more"),
        (dict(temperature=float("nan")), "temperature=nan: give 0 or more"),
        (dict(wrong_reward=1), "wrong_reward=1: give -1 or more, and less than 1"),
        (dict(wrong_reward=-1.1), "wrong_reward=-1.1: give -1 or more, and less than 1"),
    ],
)
def test_options_out_of_range_are_refused_in_one_line(bad, message):
    with pytest.raises(ValueError) as refused:
        SearchOptions(**bad)
    assert str(refused.value) == message


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name.startswith(("beam", "mcts"))])
def test_a_strategy_gathers_the_finished_programs_of_its_trees(name):
    unvisited = 0
    for t in think(name, QUESTIONS, fresh(), 150):
        finished = [x for tree in t.trees for x in trajectories(tree)]
        assert [(p.steps, p.answer) for p in t.programs] == [
            (x["steps"], x["answer"]) for x in finished
        ]
        unvisited += sum(x["visits"] == 0 for x in finished)
    assert unvisited


def test_the_most_visited_program_is_found_from_the_root_down():
    few = Program(["a", "x"], 1, visits=(2, 2))
    first, second = Program(["b", "y"], 2, visits=(5, 1)), Program(["b", "z"], 3, visits=(5, 4))
    assert best([few, first, second], path_visits) is second
    assert best([Program(["c"], 4), few], path_visits) is few  # a sample has no visits


def test_visits_and_votes_are_not_the_same_thing():
    """A finished program is visited once at most; what tells programs apart is the way to it."""
    different = 0
    for rule in ("uct", "puct"):
        visited, voted = (
            think(f"mcts/{rule}/{choice}", QUESTIONS, fresh(), 400)
            for choice in ("most_visited", "majority")
        )
        for v, m in zip(visited, voted, strict=True):
            assert v.programs == m.programs and m.chosen == majority(m.programs)
            different += v.chosen != m.chosen
            for tree in v.trees:
                ends = {x["node"]: x["visits"] for x in trajectories(tree)}
                assert set(ends.values()) <= {0, 1}
            if v.chosen:
                assert v.chosen.visits[0] == max(p.visits[0] for p in v.programs)
    assert different
