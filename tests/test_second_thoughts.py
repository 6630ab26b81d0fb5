"""Trees whose untried children are the policy's runners-up, on a model trained for seconds."""

import math

import pytest
import torch

from rstar_nb.executor.pool import Executor
from rstar_nb.executor.result import Result
from rstar_nb.policy.policy import Policy
from rstar_nb.policy.steps import STEP_END, plain_prompt
from rstar_nb.policy.tiny import tiny_model, train_tokenizer
from rstar_nb.problems.generator import generate, gold_program
from rstar_nb.search import second_thoughts as module
from rstar_nb.search.agent import Agent, SearchOptions
from rstar_nb.search.mcts import search
from rstar_nb.search.second_thoughts import failed_step, run_steps, second_thoughts
from rstar_nb.search.tree import ROOT, Tree, check_invariants, replay, trajectories
from rstar_nb.search.ucb import puct, uct
from rstar_nb.training.sft import fine_tune

OPTIONS = SearchOptions(rollouts=10, candidates=8, rule=puct, expansion=second_thoughts)


@pytest.fixture(scope="module")
def policy():
    problems = generate(200, levels=[1, 2])
    rows = [dict(question=p.question, steps=gold_program(p.id)) for p in problems]
    tokenizer = train_tokenizer(
        [plain_prompt(r["question"]) + STEP_END.join(r["steps"]) + STEP_END for r in rows]
    )
    policy = Policy(tiny_model(len(tokenizer), seed=3), tokenizer)
    fine_tune(policy, rows, num_steps=60, batch_size=32, muon_lr=0.02)
    return policy


@pytest.fixture(scope="module")
def executor():
    with Executor(workers=2, preload=()) as executor:
        yield executor


@pytest.fixture(scope="module")
def problems():
    return generate(12, "test", levels=[1, 2])


def grown(policy, executor, problems, options=OPTIONS, references=True, ppm=None):
    trees = [Tree(p.id, p.question) for p in problems]
    answers = {p.id: p.answer for p in problems} if references else None
    return search(trees, Agent(policy, executor, ppm), options, answers)


@pytest.fixture(scope="module")
def trees(policy, executor, problems):
    return grown(policy, executor, problems)


def test_the_first_rollout_is_the_greedy_program(policy, trees):
    greedy = policy.propose([(t.question, []) for t in trees], 1, [0] * 12, 0, whole=True)
    for t, (c,) in zip(trees, greedy, strict=True):
        first = [t.nodes[i].step for e in t.events if e["kind"] == "expand" for i in e["children"]]
        written = c.text.split(STEP_END)
        assert first[: len(written)] == written[: len(first)]


def test_invariants_and_replay_hold(trees):
    assert sum(t.rollouts for t in trees) > 60
    for t in trees:
        check_invariants(t)
        again = replay(t, len(t.events))
        assert [(n.node_visits, n.value_sum, n.status) for n in again.nodes] == [
            (n.node_visits, n.value_sum, n.status) for n in t.nodes
        ]


def test_what_a_failed_step_would_have_led_to_is_not_in_the_tree(trees):
    failed = [n for t in trees for n in t.nodes if n.status != "ok"]
    assert failed and all(not n.children and n.node_visits == 0 for n in failed)


def test_no_two_children_have_one_text_and_no_set_is_opened_twice(trees):
    for t in trees:
        for n in t.nodes:
            texts = [c.step for c in t.children(n.id)]
            assert len(set(texts)) == len(texts)
            waiting = [u.ids for u in n.untried or ()]
            assert len(set(waiting)) == len(waiting)
            for child in t.children(n.id):
                assert not any(child.ids[: len(ids)] == ids for ids in waiting)


def logprob(policy, prompt, ids):
    with torch.inference_mode():
        logits = policy.model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
    return float(logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None]).sum())


def test_priors_are_the_policys_probabilities(policy, trees):
    for t in trees[:4]:
        prompt = policy.encode(t.question)
        for n in t.nodes[:6]:
            before = [*prompt, *(x for i in t.path(n.id) for x in t.nodes[i].ids)]
            for u in (n.untried or [])[:3]:
                assert u.logprob == pytest.approx(logprob(policy, before, u.ids), abs=1e-3)
            for c in t.children(n.id)[:3]:
                assert c.logprob == pytest.approx(logprob(policy, before, c.ids), abs=1e-3)
                assert c.prior == pytest.approx(math.exp(c.logprob))


def test_children_and_sets_part_what_is_possible(policy, executor, problems, monkeypatch):
    monkeypatch.setattr(module, "RUNNERS_UP", len(policy.tokenizer) - 1)
    monkeypatch.setattr(module, "LEAST_PRIOR", 1e-12)
    options = SearchOptions(rollouts=5, candidates=8, rule=puct, expansion=second_thoughts)
    for t in grown(policy, executor, problems[:4], options):
        root = t.nodes[ROOT]
        written = sum(c.prior for c in t.children(ROOT))
        waiting = sum(math.exp(u.logprob) for u in root.untried)
        assert written + waiting == pytest.approx(1, abs=1e-3)


def test_more_rollouts_go_on_from_fewer(policy, executor, problems, trees):
    again = [Tree(p.id, p.question) for p in problems]
    references = {p.id: p.answer for p in problems}
    for rollouts in (3, 10):
        options = SearchOptions(
            rollouts=rollouts, candidates=8, rule=puct, expansion=second_thoughts
        )
        search(again, Agent(policy, executor), options, references)
    # In a smaller batch a probability differs in its last digits.
    for a, b in zip(again, trees, strict=True):
        assert [(n.step, n.node_visits) for n in a.nodes] == [
            (n.step, n.node_visits) for n in b.nodes
        ]


def test_a_budget_of_tokens_and_an_end_when_there_is_enough(policy, executor, problems, trees):
    options = SearchOptions(
        rollouts=50, candidates=8, rule=puct, expansion=second_thoughts, max_tokens=60
    )
    longest = 4 * policy.max_step_tokens
    assert all(60 <= t.tokens < 60 + longest for t in grown(policy, executor, problems, options))
    options = SearchOptions(
        rollouts=10,
        candidates=8,
        rule=puct,
        expansion=second_thoughts,
        enough=lambda tree: any(n.correct for n in tree.nodes),
    )
    for t, whole in zip(grown(policy, executor, problems, options), trees, strict=True):
        right = [i for i, e in enumerate(ends(t)) if t.nodes[e].correct]
        assert right in ([], [t.rollouts - 1]) and t.rollouts <= whole.rollouts


def ends(tree):
    return [e["path"][-1] for e in tree.events if e["kind"] == "backup"]


@pytest.mark.parametrize("rule", [uct, puct])
def test_a_node_has_no_more_children_than_candidates(policy, executor, problems, rule):
    options = SearchOptions(rollouts=12, candidates=2, rule=rule, expansion=second_thoughts)
    for t in grown(policy, executor, problems[:6], options):
        check_invariants(t)
        assert max(len(n.children or ()) for n in t.nodes) == 2


class Judge:
    """A PPM that likes short programs; it must be asked about new nodes that ran, each once."""

    def __init__(self):
        self.asked = []

    def score_steps(self, programs):
        self.asked += [
            (q, tuple(steps[:i]))
            for q, steps, n in programs
            for i in range(len(steps) - n + 1, len(steps) + 1)
        ]
        return [[-0.1 * i for i in range(len(s) - n + 1, len(s) + 1)] for _, s, n in programs]


def test_the_ppm_scores_every_node_that_ran_once(policy, executor, problems):
    judge = Judge()
    for t in grown(policy, executor, problems[:6], references=False, ppm=judge):
        ran = [n for n in t.nodes[1:] if n.status == "ok"]
        assert all(n.ppm == pytest.approx(-0.1 * t.depth(n.id)) for n in ran)
        assert all(n.ppm is None for n in t.nodes if n.status != "ok")
        done = trajectories(t)
        assert {x["ppm"] for x in done} <= {n.ppm for n in ran}
    assert len(set(judge.asked)) == len(judge.asked)


def test_a_ppm_that_reads_beginnings_only_gives_the_same_tree(policy, executor, problems):
    class Beginnings:
        def score(self, prefixes):
            return [-0.1 * len(steps) for _, steps in prefixes]

    along = grown(policy, executor, problems[:6], references=False, ppm=Judge())
    alone = grown(policy, executor, problems[:6], references=False, ppm=Beginnings())
    for a, b in zip(along, alone, strict=True):
        assert [n.ppm for n in a.nodes] == pytest.approx([n.ppm for n in b.nodes])
        assert [n.step for n in a.nodes] == [n.step for n in b.nodes]


@pytest.mark.parametrize("line, step", [(2, 0), (3, 1), (4, 1), (5, 1), (6, 2), (7, 2)])
def test_the_line_of_an_error_names_the_step(line, step):
    steps = ["# one\na = 1", "# two\nb = 2", "answer = 3"]
    assert failed_step(steps, Result("error", None, "", f"X: no (line {line})", 0)) == step


def test_a_failure_without_a_line_is_found_by_running_every_beginning(executor):
    programs = [
        ["a = 1", "while True:\n    a += 1", "answer = a"],
        ["a = 1", "answer = a"],
        ["a = 1", "b = c", "answer = a"],
    ]
    hangs, runs, fails = run_steps(programs, executor)
    assert [r.status for r in hangs] == ["ok", "timeout"]
    assert [r.status for r in runs] == ["ok", "ok"] and runs[-1].answer == 1
    assert [r.status for r in fails] == ["ok", "error"] and "name 'c'" in fails[-1].error
