"""The loop, killed at places and resumed, must end like a run that was never touched."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from standin import StandIn

from rstar_nb.evolve.curriculum import draw_weights, training_problems
from rstar_nb.evolve.curriculum import test_problems as held_out_problems
from rstar_nb.evolve.loop import agreed_settings, evolve, load_settings, write_config
from rstar_nb.evolve.measuring import answer_phase, measured_splits
from rstar_nb.evolve.run import Run
from rstar_nb.evolve.searching import found_by, grow_trees, has_enough
from rstar_nb.evolve.settings import Settings, parse_settings, setting_fields
from rstar_nb.evolve.tiny import TinyModels
from rstar_nb.executor.result import Result
from rstar_nb.problems.files import save_problems
from rstar_nb.problems.generator import SUBJECTS_OF, split_of
from rstar_nb.problems.problem import Problem
from rstar_nb.search.agent import Agent
from rstar_nb.store import StoreError, is_complete, read_lines, write_lines

HERE = Path(__file__).parent


def run(folder, *where, **env):
    return subprocess.run(
        [sys.executable, str(HERE / "small_run.py"), str(folder), *where],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A run folder with its weak base trained; the killed runs below start from a copy of it."""
    folder = tmp_path_factory.mktemp("base") / "run"
    killed = run(folder, "search", "1")  # stops as the first round's search begins
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert is_complete(folder / "round_0" / "policy")
    return folder


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    """A run that went through in one process."""
    folder = tmp_path_factory.mktemp("untouched") / "run"
    done = run(folder)
    assert done.returncode == 0, done.stderr
    return folder


def without_times(folder):
    return [
        {k: v for k, v in m.items() if k != "seconds"} for m in read_lines(folder / "metrics.jsonl")
    ]


def test_a_small_run_has_something_to_lose(untouched):
    metrics = read_lines(untouched / "metrics.jsonl")
    assert [m["round"] for m in metrics] == [0, 1, 2]
    assert metrics[1]["pairs"] > 0 and all(
        m["selected"] > 0 and m["search"]["n"] == 12 for m in metrics[1:]
    )


@pytest.mark.parametrize(
    "place, n",
    [
        ("search", "50"),
        ("line", "5"),
        ("sft", "7"),
        ("ppm", "3"),
        ("checkpoint", "1"),
        ("checkpoint", "2"),
        ("checkpoint", "3"),
        ("file", "2"),
        ("file", "3"),
    ],
)
def test_killed_and_resumed_ends_the_same(base, untouched, tmp_path, place, n):
    folder = tmp_path / "run"
    shutil.copytree(base, folder)
    killed = run(folder, place, n, TORN_FILE=str(folder / "round_1" / "search.jsonl"))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = run(folder)
    assert resumed.returncode == 0, resumed.stderr
    assert without_times(folder) == without_times(untouched)
    for name in (
        "round_1/search.jsonl",
        "round_2/search.jsonl",
        "round_1/selected.jsonl",
        "round_2/pairs.jsonl",
        "round_2/policy/model.safetensors",
        "round_2/ppm/value_head.safetensors",
    ):
        assert (folder / name).read_bytes() == (untouched / name).read_bytes(), name


def test_a_run_writes_its_record(untouched):
    record = json.loads((untouched / "record.json").read_text())
    assert {"seed", "settings", "machine", "wall_seconds", "peak_rss_mb", "rounds", "ood"} <= set(
        record
    )
    assert [r["round"] for r in record["rounds"]] == [0, 1, 2] and set(record["ood"]) == {"0", "2"}
    assert (
        record["ood"]["0"]["search"] is None
        and record["ood"]["2"]["search"]["n"] == record["ood"]["2"]["policy"]["n"] == 4
    )
    for r in record["rounds"][1:]:
        assert (
            sum(r["solved_by"].values()) == r["coverage"]["correct"]
            and r["policy_on_searched"]["n"] == r["search"]["n"] == 12
        )
        assert r["policy_on_searched"]["by_level"].keys() == r["search"]["by_level"].keys()
    assert all(
        {"policy", "search", "coverage", "false_positive_rate", "seconds"} <= set(r)
        for r in record["rounds"]
    )
    assert 50 < record["peak_rss_mb"] < 4000 and record["wall_seconds"] > 1
    policy = record["rounds"][1]["policy"]
    assert (
        sum(n for _, n in policy["by_level"].values())
        == sum(n for _, n in policy["by_subject"].values())
        == policy["n"]
        == 24
    )


def test_a_record_of_another_version_is_refused(untouched, tmp_path):
    config = json.loads((untouched / "config.json").read_text())
    config["settings"]["old_name"] = 1
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(StoreError, match="another version.*old_name"):
        load_settings(tmp_path)


def test_no_held_out_question_among_training_rows():
    from rstar_nb.evolve.tiny import renumbered, seed_rows

    settings = Settings().with_values({"base.examples": 200})
    first = seed_rows(settings, 1)
    rows = seed_rows(settings, 6) + renumbered(first, 6, 3)
    assert {split_of(r["question"], 1) for r in rows} == {"train"}
    assert len({r["question"] for r in rows}) > 5 * len(first)  # they did get other numbers


def test_a_row_without_numbers_is_kept():
    import random

    from rstar_nb.evolve.tiny import with_new_numbers

    row = dict(problem_id="x", question="None at all?", steps=["answer = 0"])
    row["question"] += next(
        " " * i for i in range(100) if split_of(row["question"] + " " * i, 1) == "test"
    )
    assert with_new_numbers(row, random.Random(0)) == row


def test_a_round_leaves_whole_trees_that_stopped_when_they_had_enough(untouched):
    from rstar_nb.search.tree import check_invariants, replay, tree_from_json

    trees = [
        tree_from_json(line)
        for k in (1, 2)
        for line in read_lines(untouched / f"round_{k}" / "search.jsonl")
    ]
    for t in trees:
        check_invariants(t)
        assert replay(t, len(t.events)).nodes[-1].node_visits == t.nodes[-1].node_visits
        assert 1 <= t.rollouts <= 5
        backups = [i for i, e in enumerate(t.events, 1) if e["kind"] == "backup"]
        assert not any(has_enough(replay(t, i), 3) for i in backups[:-1])
    assert {has_enough(t, 3) for t in trees} == {True, False}
    assert {1, 5} < {t.rollouts for t in trees}


def tree_of_two_rollouts():
    """One rollout wrote a program of three steps, the next another end after its first step."""
    from rstar_nb.search.tree import Node, Tree

    nodes = [
        Node(0, -1, children=[1]),
        Node(1, 0, "a = 1", children=[2, 4]),
        Node(2, 1, "b = 2", children=[3]),
        Node(3, 2, "answer = a + b", answer=3),
        Node(4, 1, "b = 4", children=[5]),
        Node(5, 4, "answer = a * b", answer=4),
    ]
    events = [
        dict(kind="expand", node=0, children=[1], calls=1),
        dict(kind="expand", node=1, children=[2], calls=0),
        dict(kind="expand", node=2, children=[3], calls=0),
        dict(kind="backup", path=[0, 1, 2, 3]),
        dict(kind="expand", node=1, children=[4], calls=1),
        dict(kind="expand", node=4, children=[5], calls=0),
        dict(kind="backup", path=[0, 1, 4, 5]),
    ]
    return Tree("p", "?", nodes, events, rollouts=2)


def test_a_tree_says_which_rollout_found_a_program_and_how_much_of_it_was_there():
    tree = tree_of_two_rollouts()
    assert found_by(tree, 3) == dict(rollout=1, below=0, new_steps=3)
    assert found_by(tree, 5) == dict(rollout=2, below=1, new_steps=2)
    tree.events.pop()  # the second program was written, and no rollout ended there
    assert found_by(tree, 5) == dict(rollout=None, below=1, new_steps=2)
    # Where children are sampled one step at a time, every step is written by a call of its own.
    for e in tree.events:
        e.pop("calls", None)
    assert found_by(tree, 3) == dict(rollout=1, below=2, new_steps=1)


def test_a_tree_has_enough_when_it_is_solved_and_has_a_wrong_program_or_its_share():
    tree = tree_of_two_rollouts()
    first, second = tree.nodes[3], tree.nodes[5]
    assert not has_enough(tree, 1)  # no program was graded
    second.correct = False
    assert not has_enough(tree, 1)  # a wrong program alone, whatever the rollouts
    first.correct = True
    assert has_enough(tree, 99)
    second.correct = True
    assert not has_enough(tree, 3) and has_enough(tree, 2)
    second.correct = None
    assert not has_enough(tree, 3) and has_enough(tree, 2)


def test_a_finished_run_is_left_alone(untouched):
    before = (untouched / "metrics.jsonl").read_bytes()
    with pytest.raises(StoreError, match="holds a run already"):
        evolve(untouched, Settings())
    assert (untouched / "metrics.jsonl").read_bytes() == before


def test_settings_are_recorded_and_must_agree(untouched):
    recorded = load_settings(untouched)
    assert recorded.problems.number == (24,) and recorded.rounds == 2
    assert agreed_settings(untouched, None) == recorded
    with pytest.raises(StoreError, match=r"other settings \(sft\.lr, reward\.lr\)"):
        other = recorded.with_values({"sft.lr": 1.0, "reward.lr": 1.0})
        agreed_settings(untouched, other)
    more = replace(recorded, rounds=3)
    assert agreed_settings(untouched, more) == more
    with pytest.raises(StoreError, match="a run of 2 rounds"):
        agreed_settings(untouched, replace(recorded, rounds=1))
    assert {"cpu", "torch", "torch_threads"} <= set(
        json.loads((untouched / "config.json").read_text())["machine"]
    )


def test_nothing_in_the_loop_reads_gold_programs(untouched, monkeypatch):
    import rstar_nb.evolve.base as base
    import rstar_nb.evolve.tiny as tiny
    import rstar_nb.problems.generator as problems
    from rstar_nb.executor.pool import Executor
    from rstar_nb.policy.policy import Policy

    def forbidden(problem_id):
        raise AssertionError("a gold program was read")

    for module in (problems, tiny, base):
        monkeypatch.setattr(module, "gold_program", forbidden)
    settings = load_settings(untouched)
    policy = Policy.load(untouched / "round_2" / "policy")
    with Executor(workers=1, preload=()) as executor:
        run = Run(untouched, settings, executor, TinyModels(), quiet=True)
        drawn = problems.generate(4, levels=[1])
        trees = grow_trees(run, 1, drawn, Agent(policy, executor))
    assert len(trees) == 4 and all(t.rollouts for t in trees)


def test_what_is_solved_in_part_is_drawn_most():
    rows = [
        dict(level=level, subject="story", solved=i < n)
        for level, n in ((2, 9), (3, 3), (4, 0))
        for i in range(9)
    ]
    rows += [dict(level=2, subject="equation", solved=i < 2) for i in range(4)]
    weights = draw_weights(rows, range(2, 6))
    assert weights[2, "story"] == weights[4, "story"] == weights[5, "story"] == 0.05
    assert weights[3, "story"] == pytest.approx(3**-0.5 * 2 / 3)
    assert weights[3, "equation"] == pytest.approx(0.375)  # a quarter solved, it supposes
    assert weights[4, "equation"] == pytest.approx(0.125**0.5 * 0.875)  # and an eighth
    assert set(weights) == {(level, s) for level in range(2, 6) for s in SUBJECTS_OF["gen"]}


def test_resume_without_a_run(tmp_path):
    with pytest.raises(StoreError, match="start the run without --resume"):
        evolve(tmp_path / "none", resume=True)


# --- a run on somebody's own problems


@pytest.fixture
def own_problems(tmp_path):
    """Settings with a file of twenty problems for training and one of five for measuring."""
    save_problems([Problem(f"p{i}", f"{i} + 1?", str(i + 1)) for i in range(20)], tmp_path / "a")
    save_problems([Problem(f"t{i}", f"{i} + 2?", str(i + 2)) for i in range(5)], tmp_path / "b")
    return Settings().with_values(
        {
            "problems.train_file": str(tmp_path / "a"),
            "problems.test_file": str(tmp_path / "b"),
            "problems.number": (8,),
            "problems.carry": 2,
        }
    )


def searched(run, k, unsolved):
    """The record of a round's search in which these problems stayed unsolved."""
    rows = [
        dict(problem_id=p.id, level=0, subject="", solved=p.id not in unsolved)
        for p in training_problems(run, k)
    ]
    write_lines(run.folder_of(k) / "search.jsonl", rows)


def names(problems):
    return [p.id for p in problems]


def test_unsolved_problems_of_a_file_are_carried_into_the_next_round(own_problems, tmp_path):
    run = Run(tmp_path / "run", own_problems, None, TinyModels(), quiet=True)
    first = training_problems(run, 1)
    assert names(first) == [f"p{i}" for i in range(8)]
    searched(run, 1, {"p1", "p4", "p6"})
    second = training_problems(run, 2)
    assert names(second) == [*(f"p{i}" for i in range(8, 16)), "p1", "p4"]
    assert second[-2:] == [first[1], first[4]]
    # Round 3 begins where round 2 ended, with fresh ones, and comes round to the beginning.
    searched(run, 2, {"p4", "p1", "p9"})
    third = names(training_problems(run, 3))
    assert third == ["p16", "p17", "p18", "p19", "p0", "p1", "p2", "p3", "p9", "p4"]
    run.settings = own_problems.with_values({"problems.carry": 0})
    assert len(training_problems(run, 3)) == 8


def test_unsolved_generated_problems_are_carried_too(tmp_path):
    settings = Settings().with_values({"problems.number": (8,), "problems.carry": 2})
    run = Run(tmp_path / "run", settings, None, TinyModels(), quiet=True)
    first = training_problems(run, 1)
    searched(run, 1, {first[3].id, first[5].id, first[7].id})
    second = training_problems(run, 2)
    assert len(second) == 10 and second[8:] == [first[3], first[5]]
    assert not set(names(first)) & set(names(second[:8]))


def test_a_training_file_without_a_test_file_is_refused(tmp_path):
    save_problems([Problem("p", "1 + 1?", "2")], tmp_path / "p")
    alone = {"problems.train_file": str(tmp_path / "p")}
    with pytest.raises(ValueError, match="without problems.test_file") as refused:
        Settings().with_values(alone)
    assert "\n" not in str(refused.value)
    both = {**alone, "problems.test_file": str(tmp_path / "p")}
    assert names(held_out_problems(Settings().with_values(both))) == ["p"]
    # A test file alone measures the generator's rounds on somebody's problems.
    Settings().with_values({"problems.test_file": str(tmp_path / "p")})


def test_the_order_in_which_the_two_files_are_given_does_not_matter():
    given = ["problems.train_file=a", "problems.test_file=b"]
    for order in (given, given[::-1]):
        settings = Settings().with_values(parse_settings(order))
        assert (settings.problems.train_file, settings.problems.test_file) == ("a", "b")


# --- the progress of an evaluation


class Bars(Run):
    """A run that notes what its phases announced and how far they came."""

    def __init__(self, *args):
        super().__init__(*args, quiet=True)
        self.totals = {}
        self.reached = {}

    @contextmanager
    def phase(self, k, name, total):
        self.totals[name] = total
        self.reached[name] = 0

        def advance(n=1):
            self.reached[name] += n

        yield advance


class Same(StandIn):
    """Proposes the gold step as often as it is asked: each tree holds one program."""

    def propose(self, prefixes, k, seeds, temperature=1.0, top_k=0, whole=False):
        rows = super().propose(prefixes, k, seeds, temperature, top_k, whole)
        return [[candidates[0]] * k for candidates in rows]


class Scores:
    def score(self, prefixes):
        return [0.5] * len(prefixes)


class Answers:
    """An executor whose programs all run."""

    def run(self, programs):
        return [Result("ok", 1, "", None, 0.0) for _ in programs]


@pytest.mark.parametrize("ppm, total", [(None, 12 + 4), (Scores(), 12 + 4 + 3 * (5 + 2))])
def test_the_progress_of_an_evaluation_reaches_its_total(tmp_path, ppm, total):
    settings = Settings().with_values(
        {
            "rounds": 1,
            "evaluation.problems": 12,
            "evaluation.search_problems": 5,
            "evaluation.ood_problems": 4,
            "evaluation.ood_search_problems": 2,
            "evaluation.rollouts": 3,
            "search.expansion": "sampled_steps",  # the policy below cannot name its runners-up
        }
    )
    run = Bars(tmp_path, settings, Answers(), TinyModels())
    problems = [p for _, drawn, _ in measured_splits(run, 1) for p in drawn]
    answer_phase(run, 1, Agent(Same(problems, spoil=0), Answers(), ppm))
    assert run.totals["evaluate"] == run.reached["evaluate"] == total
    rows = read_lines(tmp_path / "round_1" / "eval.jsonl")
    assert len(rows) == 16 + (7 if ppm else 0)


# --- settings

# For every setting with a range: a value outside, as --set takes it, and the range in words.
OUT_OF_RANGE = {
    "seed": ("-1", "0 or more"),
    "rounds": ("-1", "0 or more"),
    "base.source": ("hub", "one of shipped, trained"),
    "base.examples": ("-1", "0 or more"),
    "base.num_steps": ("-1,5", "0 or more"),
    "base.levels": ("0", "1 or more"),
    "base.lr": ("0", "above 0"),
    "base.muon_lr": ("-0.1", "0 or more"),
    "problems.kind": ("chains", "one of gen, sto, mix"),
    "problems.number": ("0", "1 or more"),
    "problems.min_level": ("0", "1 or more"),
    "problems.max_level": ("5,0", "1 or more"),
    "problems.carry": ("-1", "0 or more"),
    "search.wave": ("0", "1 or more"),
    "search.expansion": ("wide", "one of second_thoughts, sampled_steps"),
    "search.rule": ("ucb", "one of puct, uct"),
    "search.rollouts": ("0", "1 or more"),
    "search.solved_rollouts": ("0", "1 or more"),
    "search.candidates": ("0", "1 or more"),
    "search.temperature": ("-1", "0 or more"),
    "search.top_k": ("-1", "0 or more"),
    "search.wrong_reward": ("-1.5", "-1 or more and at most 0"),
    "search.max_depth": ("0", "1 or more"),
    "search.max_tokens": ("-1", "0 or more"),
    "search.ppm_from": ("0", "1 or more"),
    "sft.start_from": ("first", "one of base, previous"),
    "sft.passes": ("0", "above 0"),
    "sft.min_num_steps": ("0", "1 or more"),
    "sft.max_num_steps": ("0", "1 or more"),
    "sft.top": ("0", "1 or more"),
    "sft.ppm_from": ("1", "2 or more"),
    "sft.min_ppm": ("1.5", "-1 or more and at most 1"),
    "sft.batch_size": ("0", "1 or more"),
    "sft.lr": ("0", "above 0"),
    "sft.muon_lr": ("-0.1", "0 or more"),
    "reward.reads": ("first", "one of last, likelihood"),
    "reward.num_steps": ("-1", "0 or more"),
    "reward.max_pairs": ("0", "1 or more"),
    "reward.batch_size": ("0", "1 or more"),
    "reward.lr": ("0", "above 0"),
    "evaluation.problems": ("0", "1 or more"),
    "evaluation.levels": ("0", "1 or more"),
    "evaluation.search_problems": ("-1", "0 or more"),
    "evaluation.ood_problems": ("-1", "0 or more"),
    "evaluation.ood_search_problems": ("-1", "0 or more"),
    "evaluation.rollouts": ("0", "1 or more"),
    "evaluation.agreed": ("1.5", "above 0 and at most 1"),
    "evaluation.candidates": ("0", "1 or more"),
    "machine.workers": ("0", "1 or more"),
    "machine.processes": ("0", "1 or more"),
    "machine.timeout": ("0", "above 0"),
}
WITHOUT_RANGE = {
    "problems.adaptive",
    "problems.train_file",
    "problems.test_file",
    "problems.skip_bad",
    "sft.renumber",
    "machine.preload",
    "machine.allow_weak_sandbox",
}


def one_line_of(refused) -> str:
    text = str(refused.value)
    assert "\n" not in text
    return text


def test_every_setting_is_in_the_table_above():
    assert set(OUT_OF_RANGE) | WITHOUT_RANGE == set(setting_fields())


@pytest.mark.parametrize("name", OUT_OF_RANGE)
def test_a_value_out_of_its_range_is_refused_in_one_line_that_says_the_range(name):
    text, limits = OUT_OF_RANGE[name]
    with pytest.raises(ValueError) as refused:
        parse_settings([f"{name}={text}"])
    message = one_line_of(refused)
    assert message.startswith(f"{name}=") and message.endswith(f"it must be {limits}")


@pytest.mark.parametrize("name", OUT_OF_RANGE)
def test_the_group_itself_refuses_what_the_command_line_refuses(name):
    """From Python: `SearchSettings(candidates=(0,))`."""
    text, limits = OUT_OF_RANGE[name]
    of_kind = type(setting_fields()[name].default)
    value = tuple(map(int, text.split(","))) if of_kind is tuple else text
    if of_kind in (int, float, type(None)):
        value = float(text) if of_kind is not int else int(text)
    group, _, field_name = name.rpartition(".")
    cls = type(getattr(Settings(), group)) if group else Settings
    with pytest.raises(ValueError, match=f"it must be {limits}"):
        cls(**{field_name: value})


@pytest.mark.parametrize(
    "name, value, kind",
    [
        ("search.candidates", ("3",), "a whole number"),
        ("search.candidates", (2.5,), "a whole number"),
        ("search.candidates", (True,), "a whole number"),
        ("search.wave", "10", "a whole number"),
        ("search.wave", None, "a whole number"),
        ("search.temperature", "1", "a finite number"),
        ("search.temperature", True, "a finite number"),
        ("sft.min_ppm", "none", "a finite number"),
        ("sft.renumber", 1, "true or false"),
        ("problems.test_file", 3, "a text"),
        ("rounds", 1.5, "a whole number"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_in_one_line(name, value, kind):
    with pytest.raises(ValueError) as refused:
        Settings().with_values({name: value})
    message = one_line_of(refused)
    assert message.startswith(f"{name}=") and message.endswith(f"it takes {kind}")


def test_a_setting_of_each_round_needs_a_value():
    with pytest.raises(ValueError, match="search.rollouts needs a value for at least one round"):
        Settings().with_values({"search.rollouts": ()})
    assert Settings().with_values({"evaluation.levels": ()}).evaluation.levels == ()


@pytest.mark.parametrize("name", setting_fields())
def test_values_at_the_ends_of_the_range_are_taken(name):
    f = setting_fields()[name]
    limits = f.metadata
    ends = [*limits["choices"], *(v for v in (limits["low"], limits["high"]) if v is not None)]
    for end in ends:
        value = (end,) * (limits["length"] or 1) if isinstance(f.default, tuple) else end
        assert Settings().with_values({name: value}).values()[name] == value


@pytest.mark.parametrize(
    "text, message",
    [
        ("rollout=3", "unknown setting 'rollout'; did you mean .*search.rollouts"),
        ("rollouts=3", "did you mean .*search.rollouts.* or evaluation.rollouts"),
        ("search.rollot=3", "did you mean .*search.rollouts"),
        ("search=3", "unknown setting 'search'"),
        ("lr", "write NAME=VALUE, for example"),
        ("zzz=1", "`rstar settings` lists them"),
        ("rounds=two", "rounds='two' does not fit; it takes a whole number"),
        ("search.rollouts=2,x", "search.rollouts='2,x' does not fit; it takes a whole number"),
        ("sft.lr=fast", "sft.lr='fast' does not fit; it takes a finite number"),
        ("machine.allow_weak_sandbox=maybe", "does not fit; it takes true or false"),
        ("search.rollouts=", "needs a value for at least one round"),
    ],
)
def test_bad_settings(text, message):
    with pytest.raises(ValueError, match=message) as refused:
        parse_settings([text])
    one_line_of(refused)


def test_an_unknown_name_from_python_has_the_same_hint():
    with pytest.raises(ValueError, match="unknown setting 'rollout'; did you mean"):
        Settings().with_values({"rollout": (3,)})


CHANGED = {
    "rounds": 7,
    "base.num_steps": (3, 4),
    "problems.adaptive": False,
    "problems.train_file": "a.jsonl",
    "problems.test_file": "b.jsonl",
    "search.rollouts": (8, 16, 24),
    "search.temperature": 0.7,
    "sft.start_from": "base",
    "sft.min_ppm": 0.25,
    "reward.reads": "last",
    "evaluation.levels": (1, 2),
    "machine.preload": "sympy numpy",
}


def test_settings_come_back_from_the_command_line_and_from_config_json(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).touch()
    settings = Settings().with_values(CHANGED)
    assert {n: v for n, v in settings.values().items() if v != Settings().values()[n]} == CHANGED
    written = {
        name: ",".join(map(str, value)) if isinstance(value, tuple) else value
        for name, value in CHANGED.items()
    }
    assert parse_settings([f"{name}={value}" for name, value in written.items()]) == CHANGED
    for one in (settings, Settings(), Settings().with_values({"sft.min_ppm": None})):
        run = Run(
            tmp_path, one, SimpleNamespace(isolation=SimpleNamespace(level="x")), TinyModels()
        )
        write_config(run, resume=False)
        assert load_settings(tmp_path) == one
    assert parse_settings(["sft.min_ppm=none"]) == {"sft.min_ppm": None}


def test_values_in_rounds():
    search = Settings().with_values({"search.rollouts": (8, 16), "search.candidates": (5,)}).search
    assert [search.in_round(k).rollouts for k in (1, 2, 3, 9)] == [8, 16, 16, 16]
    assert [search.in_round(k).candidates for k in (1, 2)] == [5, 5]
    # What is a tuple for another reason stays one.
    assert Settings().base.in_round(2).num_steps == Settings().base.num_steps
    assert Settings().evaluation.in_round(1) == Settings().evaluation
    problems = Settings().with_values({"problems.max_level": (5, 6, 6)}).problems
    assert [problems.in_round(k).max_level for k in (1, 2, 4)] == [5, 6, 6]


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("search.wave", (1, 2), "it takes one value"),
        ("base.num_steps", 5, "it takes values in a row"),
        ("base.num_steps", (5,), "it takes 2 values"),
        ("sft.lr", float("inf"), "it takes a finite number"),
        ("search.rollouts", (), "at least one round"),
    ],
)
def test_as_many_values_as_a_setting_takes(name, value, message):
    with pytest.raises(ValueError, match=message):
        Settings().with_values({name: value})
    assert Settings().with_values({"search.rollouts": 8}).search.in_round(3).rollouts == 8


@pytest.fixture
def run_on_files(tmp_path):
    """A run that was started on problem files and has finished a round, as far as resuming sees."""
    from rstar_nb.evolve.inputs import file_digests, keep_settings, with_whole_paths
    from rstar_nb.problems.files import save_problems
    from rstar_nb.problems.generator import generate

    files = {}
    for name in ("train", "test"):
        save_problems(generate(4, name), tmp_path / f"{name}.jsonl")
        files[f"problems.{name}_file"] = str(tmp_path / f"{name}.jsonl")
    settings = with_whole_paths(Settings().with_values(files))
    folder = tmp_path / "run"
    (folder / "round_1").mkdir(parents=True)
    config = dict(settings=asdict(settings), preset="tiny", files=file_digests(settings))
    (folder / "config.json").write_text(json.dumps(config))
    keep_settings(folder / "round_1", settings)
    return folder


def resume_message(folder) -> str:
    with pytest.raises((StoreError, ValueError)) as refused:
        evolve(folder, resume=True)
    text = str(refused.value)
    assert "\n" not in text
    return text


def test_a_problem_file_that_changed_is_refused_on_resume(run_on_files):
    path = run_on_files.parent / "test.jsonl"
    path.write_text(path.read_text() + "\n")
    assert f"{path} has changed since" in resume_message(run_on_files)


def test_a_problem_file_that_is_gone_is_said_on_resume(run_on_files):
    (run_on_files.parent / "train.jsonl").unlink()
    assert "train.jsonl cannot be read (No such file" in resume_message(run_on_files)


def test_an_edited_config_is_refused_on_resume(run_on_files):
    config = json.loads((run_on_files / "config.json").read_text())
    config["settings"]["sft"]["lr"] = 0.5
    (run_on_files / "config.json").write_text(json.dumps(config))
    assert "config.json says sft.lr=0.5, and round_1 ran with 0.001" in resume_message(run_on_files)


def test_a_text_where_a_number_belongs_is_refused_on_resume(run_on_files):
    config = json.loads((run_on_files / "config.json").read_text())
    config["settings"]["sft"]["lr"] = "fast"
    (run_on_files / "config.json").write_text(json.dumps(config))
    assert "sft.lr='fast' does not fit; it takes a finite number" in resume_message(run_on_files)


def test_a_run_goes_on_from_another_folder(run_on_files, tmp_path, monkeypatch):
    """A path that was given relative to one folder means the same file from everywhere."""
    from rstar_nb.evolve.loop import agreed_settings

    monkeypatch.chdir(tmp_path)
    given = {"problems.train_file": "train.jsonl", "problems.test_file": "test.jsonl"}
    settings = agreed_settings(run_on_files, Settings().with_values(given))
    assert settings == load_settings(run_on_files)


def test_bad_references_are_left_out_on_request(tmp_path, capsys):
    from rstar_nb.evolve.inputs import check_problem_files
    from rstar_nb.problems.problem import ProblemFileError

    rows = [dict(id="a", question="1 + 1?", answer="2"), dict(id="b", question="?", answer="None")]
    path = tmp_path / "p.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    files = {"problems.train_file": str(path), "problems.test_file": str(path)}
    settings = Settings().with_values(files)
    with pytest.raises(ProblemFileError, match="line 2"):
        check_problem_files(settings)
    check_problem_files(settings.with_values({"problems.skip_bad": True}))
    assert "1 of 2 problems left out" in capsys.readouterr().err


def test_a_base_without_examples_is_refused_in_words():
    from rstar_nb.evolve.tiny import train_base

    with pytest.raises(ValueError, match="base.examples=0: the tiny model begins with"):
        train_base(Settings().with_values({"base.examples": 0}))


def test_a_base_of_long_examples_skips_the_stage_of_short_ones():
    from rstar_nb.evolve.tiny import train_base

    values = {"base.examples": 12, "base.levels": (3, 4), "base.num_steps": (2, 1)}
    steps = []
    train_base(Settings().with_values(values), on_step=lambda *at: steps.append(at))
    assert len(steps) == 1
