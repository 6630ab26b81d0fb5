"""Arms of the loop: what they change, what they leave alone, and what they leave on disk."""

import inspect
import json
from dataclasses import FrozenInstanceError, fields, replace

import pytest
from standin import StandIn

import rstar_nb.evolve.ablations as ablations
import rstar_nb.evolve.arms as arms_module
from rstar_nb.answers.judge import is_equivalent
from rstar_nb.evolve.ablations import arm_table, run_arms
from rstar_nb.evolve.arms import (
    ARMS,
    RandomPPM,
    majority_problems,
    sampled_trees,
    tokens_per_tree,
    tree_of_samples,
    with_noise,
)
from rstar_nb.evolve.curriculum import training_problems
from rstar_nb.evolve.loop import Loop
from rstar_nb.evolve.run import Run
from rstar_nb.evolve.searching import grow_trees, search_phase
from rstar_nb.evolve.settings import Settings
from rstar_nb.evolve.tiny import TinyModels
from rstar_nb.executor.result import Result
from rstar_nb.policy.steps import Candidate
from rstar_nb.problems.generator import generate, gold_program
from rstar_nb.problems.problem import Problem
from rstar_nb.reward.pairs import preference_pairs
from rstar_nb.search.agent import Agent
from rstar_nb.search.tree import (
    ROOT,
    Tree,
    check_invariants,
    replay,
    trajectories,
    tree_from_json,
    tree_to_json,
)
from rstar_nb.show.arms import plot_arms
from rstar_nb.store import StoreError, append_lines, read_lines, write_lines

PROBLEMS = generate(12, "train", seed=2)
MICRO = Settings().with_values(
    {
        "rounds": 1,
        "base.examples": 60,
        "base.num_steps": (4, 1),
        "problems.number": (8,),
        "problems.min_level": (1,),
        "problems.max_level": (1,),
        "search.rollouts": (3,),
        "search.wave": 8,
        "search.candidates": (3,),
        "sft.min_num_steps": 3,
        "sft.max_num_steps": 3,
        "reward.num_steps": (2,),
        "evaluation.problems": 4,
        "evaluation.ood_problems": 2,
        "evaluation.search_problems": 2,
        "evaluation.rollouts": 2,
        "evaluation.candidates": 2,
        "machine.workers": 1,
        "machine.processes": 1,
    }
)


def result(status, answer=None):
    return Result(status, answer, "", None if status == "ok" else "NameError", 0.0)


def candidate(*steps, logprob=-1.0):
    return Candidate(
        "\n\n".join(steps), logprob, tuple("x" for s in steps for _ in s.split()), True
    )


class Calculator:
    def run(self, programs):
        return [
            result("ok", sum(map(ord, p)) % 5) if "missing" not in p else result("error")
            for p in programs
        ]


class Policy(StandIn):
    def encode(self, question, steps=()):
        return " ".join([question, *steps]).split()


class Models(TinyModels):
    """Models whose policy is a stand-in."""

    def load_policy(self, folder):
        return Policy(PROBLEMS)


DEFAULTS = Settings()


def run_in(folder, settings=DEFAULTS):
    return Run(folder, settings, Calculator(), Models(), quiet=True)


def test_samples_become_a_tree_in_which_each_program_that_ran_is_a_rollout():
    problem = Problem("p", "?", "3")
    drawn = [
        candidate("a = 1", "b = 2", "answer = 3"),
        candidate("a = 1", "answer = 4"),
        candidate("a = 1", "b = 2", "answer = 3"),
        candidate("a = 1", "missing"),
        candidate("c = 1"),
        candidate("a = 1", "b = 2"),
        candidate("a = 1"),
    ]  # the last is said to have run out of time, though programs that go on from there ran
    results = [
        result("ok", 3),
        result("ok", 4),
        result("ok", 3),
        result("error"),
        result("ok"),
        result("ok"),
        result("timeout"),
    ]
    tree = tree_of_samples(problem, drawn, results)
    check_invariants(tree)
    assert (tree.rollouts, tree.nodes[ROOT].value_sum, tree.tokens) == (
        5,
        2 - 3,
        sum(len(c.ids) for c in drawn),
    )
    assert [(x["answer"], x["correct"], x["visits"]) for x in trajectories(tree)] == [
        (3, True, 2),
        (4, False, 1),
    ]
    assert len(tree.nodes) == 1 + 2 + 3 + 1  # beginnings are shared
    again = replay(tree, len(tree.events))
    assert [(n.node_visits, n.value_sum, n.status, n.children) for n in again.nodes] == [
        (n.node_visits, n.value_sum, n.status, n.children) for n in tree.nodes
    ]
    assert tree_from_json(json.loads(json.dumps(tree_to_json(tree)))) == tree
    lump = tree_of_samples(problem, drawn, results, whole=True)
    check_invariants(lump)
    assert (
        lump.rollouts == 5
        and {len(x["steps"]) for x in trajectories(lump)} == {1}
        and {p["kind"] for p in preference_pairs(lump)} == {"final"}
    )


def full_arm(folder, tokens):
    """A finished round of a full arm: trees of so many tokens."""
    (folder / "round_1").mkdir(parents=True)
    rows = [tree_to_json(Tree(f"g{t}", "?", tokens=t)) for t in tokens]
    write_lines(folder / "round_1" / "search.jsonl", rows)
    write_lines(folder / "round_1" / "pairs.jsonl", [])


def test_the_budget_is_what_the_full_arm_spent_on_a_tree(tmp_path):
    full_arm(tmp_path, [110, 150])
    assert tokens_per_tree(tmp_path, 1) == 130
    with pytest.raises(StoreError, match="run the arm 'full' first"):
        tokens_per_tree(tmp_path, 2)


def test_sampling_spends_the_budget_and_not_more_than_a_sample_over_it(tmp_path):
    full_arm(tmp_path / "full", [110, 150])
    run, agent = run_in(tmp_path), Agent(StandIn(PROBLEMS), Calculator())
    trees = sampled_trees(run, 1, PROBLEMS, agent, tmp_path / "full")
    for p, t in zip(PROBLEMS, trees, strict=True):
        check_invariants(t)
        longest = len("\n\n".join(gold_program(p.id)).split()) + 2 * 9
        assert t.problem_id == p.id and 130 <= t.tokens < 130 + longest
    again = sampled_trees(run, 1, PROBLEMS[3:5], agent, tmp_path / "full")
    assert again == trees[3:5], "a problem's samples depend on the others in its wave"


def test_noise_is_wrong_repeats_and_has_its_share():
    many = generate(600, "train")
    noisy = [with_noise(p, 0.3, 1) for p in many]
    changed = [not is_equivalent(b.answer, a.answer) for a, b in zip(many, noisy, strict=True)]
    assert 0.24 < sum(changed) / len(many) < 0.36
    assert changed == [a != b for a, b in zip(many, noisy)], (
        "a reference was replaced by an equal one"
    )
    assert noisy == [with_noise(p, 0.3, 1) for p in many] != [with_noise(p, 0.3, 2) for p in many]
    assert [with_noise(p, 0.0) for p in many] == many and all(
        b.question == a.question for a, b in zip(many, noisy)
    )


def test_majority_labels_do_not_look_at_references_and_are_kept(tmp_path, monkeypatch):
    labelled = []
    for name, answers in (("true", [p.answer for p in PROBLEMS]), ("lies", ["77"] * len(PROBLEMS))):
        run = run_in(tmp_path / name)
        drawn = [replace(p, answer=a) for p, a in zip(PROBLEMS, answers, strict=True)]
        labelled.append(majority_problems(run, 1, lambda run, k, drawn=drawn: drawn))
        with monkeypatch.context() as context:
            context.setattr(
                arms_module,
                "gather_samples",
                lambda *args, **options: pytest.fail("labels were computed again"),
            )
            again = majority_problems(run, 1, lambda run, k, drawn=drawn: drawn)
            assert again == labelled[-1]
    first, second = ([p.answer for p in problems] for problems in labelled)
    assert first == second and len(set(first)) > 1
    counts = {r["true"] for r in read_lines(tmp_path / "lies" / "round_1" / "labels.jsonl")}
    assert counts == {False}


def test_a_random_ppm_has_no_opinion_that_follows_from_quality():
    prefixes = [(f"q{i}", ["answer = 1"]) for i in range(2000)]
    scores = RandomPPM(0).score(prefixes)
    assert scores == RandomPPM(0).score(prefixes) != RandomPPM(1).score(prefixes)
    assert -1 <= min(scores) and max(scores) <= 1 and abs(sum(scores) / len(scores)) < 0.05


def as_it_is_called(part, name):
    """Bind a part's arguments as the loop calls it."""
    calls = dict(
        problems=("run", 1),
        search=("run", 1, [], "agent"),
        select=("run", 1),
        fine_tune=("run", 1),
        fit_reward=("run", 1, "policy"),
        measure=("run", 1, "agent"),
    )
    inspect.signature(part).bind(*calls[name])


@pytest.mark.parametrize("arm", ARMS.values(), ids=lambda a: a.name)
def test_an_arm_fits_the_loop(arm, tmp_path):
    changed = arm.settings(Settings())
    Settings().with_values(changed)
    loop = arm.loop(Loop(), tmp_path)
    names = [f.name for f in fields(Loop)]
    for name in names:
        as_it_is_called(getattr(loop, name), name)
    parts = [name for name in names if getattr(loop, name) != getattr(Loop(), name)]
    grown = arm.models != TinyModels()
    if grown:
        size, default = (
            sum(p.numel() for p in models.make_model(64).parameters())
            for models in (arm.models, TinyModels())
        )
        assert size > 2 * default if "larger" in arm.name else 2 * size < default
    # An arm changes one thing: settings, a part of the loop, or the models.
    assert bool(changed) + len(parts) + grown == (arm.name != "full")


def test_what_each_arm_changes(tmp_path):
    def changed(name):
        loop = ARMS[name].loop(Loop(), tmp_path)
        return [f.name for f in fields(Loop) if getattr(loop, f.name) != getattr(Loop(), f.name)]

    searching = ("best_of_n", "whole_step", "gold", "random_prm")
    assert all(changed(name) == ["search"] for name in searching)
    assert all(changed(n) == ["problems"] for n in ("no_execution", "noisy_10", "noisy_30"))
    untouched = ("full", "no_prm", "no_loop", "smaller_model", "larger_model")
    assert all(changed(name) == [] for name in untouched)
    assert {arm.name for arm in ARMS.values() if arm.needs_full} == {"best_of_n", "whole_step"}


def test_the_loop_is_as_it_was_after_an_arm(tmp_path):
    before = Loop()
    for arm in ARMS.values():
        arm.loop(before, tmp_path)
    assert before == Loop() and before.problems is training_problems
    assert before.search is search_phase
    with pytest.raises(FrozenInstanceError):
        before.search = len
    with pytest.raises(TypeError):
        replace(before, grow_tree=len)


def searched_by(arm, run, problems, agent):
    """The trees in search.jsonl after the search of an arm's loop."""
    loop = ARMS[arm].loop(Loop(), run.folder / "full")
    loop.search(run, 1, problems, agent)
    return [tree_from_json(row) for row in read_lines(run.folder / "round_1" / "search.jsonl")]


@pytest.fixture
def all_grown():
    """Settings in which nothing needs a real model."""
    return Settings().with_values({"search.expansion": "sampled_steps", "search.rollouts": (2,)})


def test_an_arms_samples_take_the_place_of_grown_trees(all_grown, tmp_path):
    agent = Agent(StandIn(PROBLEMS), Calculator())
    for arm, whole in (("best_of_n", False), ("whole_step", True)):
        run = run_in(tmp_path / arm, all_grown)
        full_arm(run.folder / "full", [110, 150])
        trees = searched_by(arm, run, PROBLEMS, agent)
        samples = sampled_trees(run, 1, PROBLEMS, agent, run.folder / "full", whole)
        for t, sampled in zip(trees, samples, strict=True):
            assert t.tokens == sampled.tokens and len(t.nodes) == len(sampled.nodes)
        sizes = {len(x["steps"]) for s in samples for x in trajectories(s)}
        assert sizes == {1} if whole else len(sizes) > 1


def test_gold_programs_join_the_trees_for_no_tokens(all_grown, tmp_path):
    agent = Agent(StandIn(PROBLEMS), GoldRuns())
    run = run_in(tmp_path, all_grown)
    trees = searched_by("gold", run, PROBLEMS, agent)
    grown = grow_trees(run, 1, PROBLEMS, agent)
    for p, t, without in zip(PROBLEMS, trees, grown, strict=True):
        (end,) = trajectories(t)
        assert end["steps"] == gold_program(p.id) and end["correct"]
        assert t.tokens == without.tokens
    rows = read_lines(tmp_path / "round_1" / "search.jsonl")
    assert {r["solved_by"] for r in rows} == {"gold"}


class GoldRuns:
    """An executor in which the gold programs give the references, and nothing else runs."""

    answers = {"\n\n".join(gold_program(p.id)): p.answer for p in PROBLEMS}

    def run(self, programs):
        return [
            result("ok", self.answers[p]) if p in self.answers else result("error")
            for p in programs
        ]


def test_a_random_ppm_searches_round_one_and_no_other(all_grown, tmp_path, monkeypatch):
    agents = []

    def noted(run, k, problems, agent):
        agents.append(agent)

    monkeypatch.setattr(arms_module, "search_phase", noted)
    search = ARMS["random_prm"].loop(Loop(), tmp_path).search
    own = Agent(StandIn(PROBLEMS), Calculator(), "the run's PPM")
    for k in (1, 2):
        search(run_in(tmp_path, all_grown), k, PROBLEMS, own)
    assert isinstance(agents[0].ppm, RandomPPM) and agents[0].policy is own.policy
    assert agents[1] is own


def test_wrong_references_join_the_problems_the_loop_would_have_drawn(tmp_path):
    run = run_in(tmp_path, MICRO)
    drawn = training_problems(run, 1)
    for name, share in (("noisy_10", 0.1), ("noisy_30", 0.3)):
        noisy = ARMS[name].loop(Loop(), tmp_path).problems(run, 1)
        assert noisy == [with_noise(p, share, run.settings.seed) for p in drawn]


def test_no_loop_spends_as_much_as_all_rounds():
    s = Settings().with_values(
        {
            "problems.number": (10, 20, 30, 40),
            "sft.min_num_steps": 5,
            "sft.max_num_steps": 7,
            "reward.num_steps": (3,),
        }
    )
    one = s.with_values(ARMS["no_loop"].settings(s))
    problems = one.problems.in_round(1)
    assert (one.rounds, problems.number) == (1, 100)
    assert (one.sft.min_num_steps, one.sft.max_num_steps) == (20, 28)
    assert one.reward.num_steps == (12,)
    assert (problems.min_level, problems.max_level) == (
        min(s.problems.min_level),
        max(s.problems.max_level),
    )


def test_no_prm_leaves_every_rounds_search_without_one():
    s = Settings()
    changed = s.with_values(ARMS["no_prm"].settings(s))
    assert changed.search.ppm_from > s.rounds and changed.reward == s.reward


@pytest.fixture(scope="module")
def arms(tmp_path_factory):
    out = tmp_path_factory.mktemp("arms")
    return out, run_arms(out, ["best_of_n", "no_execution"], [3], MICRO, quiet=True)


def test_arms_run_leave_records_and_spend_alike(arms):
    out, rows = arms
    assert [(r["arm"], r["seed"]) for r in rows] == [
        ("full", 3),
        ("best_of_n", 3),
        ("no_execution", 3),
    ]
    full, samples, labels = rows
    assert full["policy"][0] == samples["policy"][0] == labels["policy"][0], (
        "the arms do not begin with the same base"
    )
    budget = tokens_per_tree(full["folder"], 1)
    trees = [r for r in read_lines(out / "best_of_n" / "seed_3" / "round_1" / "search.jsonl")]
    assert all(r["tokens"] >= budget for r in trees)
    assert {r["solved_by"] for r in trees} <= {"samples", None}
    assert (
        "label_accuracy" in labels and labels["label_tokens"] > 0 and "label_accuracy" not in full
    )
    assert not any("labels" in str(p) for p in (out / "full").rglob("*"))


def test_finished_arms_are_kept_and_the_table_is_drawn(arms, monkeypatch):
    out, rows = arms
    monkeypatch.setattr(ablations, "evolve", lambda *a, **k: pytest.fail("an arm was run again"))
    assert (
        run_arms(out, ["best_of_n", "no_execution"], [3], MICRO, quiet=True)
        == rows
        == arm_table(out)
    )
    assert "best_of_n" in plot_arms(rows).text
    with pytest.raises(ValueError, match="unknown arm 'no_loops'"):
        run_arms(out, ["no_loops"], [3], MICRO)


def test_an_interrupted_arm_goes_on(arms, tmp_path, monkeypatch):
    out, rows = arms
    import shutil

    shutil.copytree(out, tmp_path / "again")
    folder = tmp_path / "again" / "best_of_n" / "seed_3"
    shutil.rmtree(folder / "round_1" / "ppm")
    (folder / "record.json").unlink()
    metrics = read_lines(folder / "metrics.jsonl")
    (folder / "metrics.jsonl").unlink()
    append_lines(folder / "metrics.jsonl", metrics[:1])
    again = {
        r["arm"]: r for r in run_arms(tmp_path / "again", ["best_of_n"], [3], MICRO, quiet=True)
    }
    before = {r["arm"]: r for r in rows}
    for key in ("policy", "coverage", "tokens", "search", "selected"):
        assert again["best_of_n"][key] == before["best_of_n"][key]


def test_an_arm_that_needs_the_full_one_says_so(tmp_path):
    from rstar_nb.evolve.ablations import run_arm

    with pytest.raises(StoreError, match="run the arm 'full'"):
        run_arm(ARMS["whole_step"], tmp_path, MICRO)
    assert not list(tmp_path.iterdir()), "it trained a base before it said so"
