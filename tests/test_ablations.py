"""Arms of the loop: what they change, what they leave alone, and that the loop is itself again afterwards."""

import inspect
import json
from dataclasses import replace

import pytest
from standin import StandIn

import rstar_nb.evolve.loop as loop
from rstar_nb.answers.judge import is_equivalent
from rstar_nb.evolve.ablations import arm_table, run_arms
from rstar_nb.evolve.arms import (
    ARMS,
    RandomPPM,
    majority_problems,
    parts_of_loop,
    sampled_trees,
    tokens_per_tree,
    tree_of_samples,
    with_noise,
)
from rstar_nb.evolve.settings import Settings
from rstar_nb.executor.result import Result
from rstar_nb.policy.steps import Candidate
from rstar_nb.problems.generator import generate, gold_program
from rstar_nb.problems.problem import Problem
from rstar_nb.reward.pairs import preference_pairs
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
MICRO = Settings(
    rounds=1,
    problems=(8,),
    trees=(4,),
    min_level=(1,),
    max_level=(1,),
    wave=8,
    candidates=(3,),
    seed_solutions=60,
    base_steps=(4, 1),
    sft_at_least=3,
    sft_at_most=3,
    ppm_steps=(2,),
    test_problems=4,
    ood_problems=2,
    search_problems=2,
    eval_rollouts=2,
    eval_candidates=2,
    workers=1,
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


class Run:
    """As much of a run as the parts look at."""

    def __init__(self, folder, settings=Settings(), executor=None):
        self.folder, self.settings, self.executor = folder, settings, executor or Calculator()

    round, phase, quiet = loop.Run.round, loop.Run.phase, True
    console = None


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
    """A finished round of a full arm: a straight tree of 10 tokens and grown ones."""
    (folder / "round_1").mkdir(parents=True)
    straight, rows = Tree("s", "?", tokens=10, events=[dict(kind="expand")]), []
    rows.append(tree_to_json(straight))
    rows += [
        tree_to_json(Tree(f"g{t}", "?", tokens=t, events=[dict(kind="select")])) for t in tokens
    ]
    write_lines(folder / "round_1" / "search.jsonl", rows)
    write_lines(folder / "round_1" / "pairs.jsonl", [])


def test_the_budget_is_what_the_full_arm_spent_on_a_grown_tree(tmp_path):
    full_arm(tmp_path, [110, 150])
    assert tokens_per_tree(tmp_path, 1) == 120  # 130 on average, of which 10 for the first pass
    with pytest.raises(StoreError, match="run the arm 'full' first"):
        tokens_per_tree(tmp_path, 2)


def test_sampling_spends_the_budget_and_not_more_than_a_sample_over_it(tmp_path):
    full_arm(tmp_path / "full", [110, 150])
    policy = StandIn(PROBLEMS)
    trees = sampled_trees(Run(tmp_path), 1, PROBLEMS, policy, None, tmp_path / "full")
    for p, t in zip(PROBLEMS, trees):
        check_invariants(t)
        longest = len("\n\n".join(gold_program(p.id)).split()) + 2 * 9
        assert t.problem_id == p.id and 120 <= t.tokens < 120 + longest
    again = sampled_trees(Run(tmp_path), 1, PROBLEMS[3:5], policy, None, tmp_path / "full")
    assert again == trees[3:5], "a problem's samples depend on the others in its wave"


def test_noise_is_wrong_repeats_and_has_its_share():
    many = generate(600, "train")
    noisy = [with_noise(p, 0.3, 1) for p in many]
    changed = [not is_equivalent(b.answer, a.answer) for a, b in zip(many, noisy)]
    assert 0.24 < sum(changed) / len(many) < 0.36
    assert changed == [a != b for a, b in zip(many, noisy)], (
        "a reference was replaced by an equal one"
    )
    assert noisy == [with_noise(p, 0.3, 1) for p in many] != [with_noise(p, 0.3, 2) for p in many]
    assert [with_noise(p, 0.0) for p in many] == many and all(
        b.question == a.question for a, b in zip(many, noisy)
    )


def test_majority_labels_do_not_look_at_references_and_are_kept(tmp_path, monkeypatch):
    class Policy(StandIn):
        def encode(self, question, steps=()):
            return " ".join([question, *steps]).split()

    monkeypatch.setattr(
        "rstar_nb.ablations.Policy",
        type("Loader", (), {"load": staticmethod(lambda folder: Policy(PROBLEMS))}),
    )
    labelled = []
    for name, answers in (("true", [p.answer for p in PROBLEMS]), ("lies", ["77"] * len(PROBLEMS))):
        run = Run(tmp_path / name)
        from rich.console import Console

        run.console = Console(quiet=True)
        given = [replace(p, answer=a) for p, a in zip(PROBLEMS, answers)]
        labelled.append(majority_problems(run, 1, lambda run, round: given))
        monkeypatch.setattr(
            "rstar_nb.ablations.gather_samples",
            lambda *a, **k: pytest.fail("labels were computed again"),
        )
        assert majority_problems(run, 1, lambda run, round: given) == labelled[-1]
        monkeypatch.undo()
        monkeypatch.setattr(
            "rstar_nb.ablations.Policy",
            type("Loader", (), {"load": staticmethod(lambda folder: Policy(PROBLEMS))}),
        )
    assert [p.answer for p in labelled[0]] == [p.answer for p in labelled[1]] and len(
        {p.answer for p in labelled[0]}
    ) > 1
    counts = {r["true"] for r in read_lines(tmp_path / "lies" / "round_1" / "labels.jsonl")}
    assert counts == {False}


def test_a_random_ppm_has_no_opinion_that_follows_from_quality():
    prefixes = [(f"q{i}", ["answer = 1"]) for i in range(2000)]
    scores = RandomPPM(0).score(prefixes)
    assert scores == RandomPPM(0).score(prefixes) != RandomPPM(1).score(prefixes)
    assert -1 <= min(scores) and max(scores) <= 1 and abs(sum(scores) / len(scores)) < 0.05


@pytest.mark.parametrize("arm", ARMS.values(), ids=lambda a: a.name)
def test_an_arm_fits_the_loop(arm, tmp_path):
    replace(Settings(), **arm.settings(Settings()))
    for name, part in arm.parts(tmp_path).items():
        own = inspect.signature(getattr(loop, name))
        if name != "tiny_model":
            inspect.signature(part).bind(
                *own.parameters
            )  # it can be called as the loop calls its own
        else:
            assert sum(p.numel() for p in part(64).parameters()) != sum(
                p.numel() for p in loop.tiny_model(64).parameters()
            )
    assert arm.name == "full" or arm.settings(Settings()) or arm.parts(tmp_path)


def test_no_loop_spends_as_much_as_all_rounds():
    s = Settings(
        problems=(10, 20, 30, 40),
        trees=(1, 2, 3, 4),
        solved_trees=(1,),
        sft_at_least=5,
        sft_at_most=7,
        ppm_steps=(3,),
    )
    one = replace(s, **ARMS["no_loop"].settings(s))
    assert (
        one.rounds,
        one.of("problems", 1),
        one.of("trees", 1),
        one.sft_at_least,
        one.sft_at_most,
        one.ppm_steps,
    ) == (1, 100, 10, 20, 28, (12,))
    assert one.of("solved_trees", 1) == 4
    assert (one.of("min_level", 1), one.of("max_level", 1)) == (min(s.min_level), max(s.max_level))


def test_the_loop_is_itself_again_after_an_arm_even_if_it_fails():
    own = loop.grow_trees
    with pytest.raises(KeyError):
        with parts_of_loop(dict(grow_trees=len)):
            assert loop.grow_trees is len
            raise KeyError
    assert loop.grow_trees is own
    with pytest.raises(AttributeError):
        with parts_of_loop(dict(grow_tree=len)):
            pass


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
    grown = sorted(trees, key=lambda r: -r["tokens"])[: MICRO.of("trees", 1)]
    assert all(r["tokens"] >= budget for r in grown)
    assert (
        "label_accuracy" in labels and labels["label_tokens"] > 0 and "label_accuracy" not in full
    )
    assert not any("labels" in str(p) for p in (out / "full").rglob("*"))


def test_finished_arms_are_kept_and_the_table_is_drawn(arms, monkeypatch):
    out, rows = arms
    monkeypatch.setattr(loop, "evolve", lambda *a, **k: pytest.fail("an arm was run again"))
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
