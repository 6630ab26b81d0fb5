"""The loop, killed at places and resumed, must end like a run that was never touched."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rstar_nb.evolve.curriculum import draw_weights
from rstar_nb.evolve.loop import evolve, load_settings
from rstar_nb.evolve.settings import Settings, parse_settings
from rstar_nb.problems.generator import split_of
from rstar_nb.problems.templates import SUBJECTS
from rstar_nb.store import StoreError, is_complete, read_lines

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
    """A run folder with its weak base trained; the runs that are killed below start from a copy of it."""
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

    settings = Settings(seed_solutions=200)
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


def test_the_first_pass_leaves_whole_trees(untouched):
    from rstar_nb.search.tree import check_invariants, replay, tree_from_json

    lines = read_lines(untouched / "round_1" / "search.jsonl")
    trees = [tree_from_json(l) for l in lines]
    straight = [
        t for t in trees if t.rollouts == 1 and all(len(n.children or []) <= 1 for n in t.nodes)
    ]
    assert straight and len(straight) < len(trees)
    for t in trees:
        check_invariants(t)
        assert replay(t, len(t.events)).nodes[-1].node_visits == t.nodes[-1].node_visits


def test_a_finished_run_is_left_alone(untouched):
    before = (untouched / "metrics.jsonl").read_bytes()
    with pytest.raises(StoreError, match="holds a run already"):
        evolve(untouched, Settings())
    assert (untouched / "metrics.jsonl").read_bytes() == before


def test_settings_are_recorded_and_must_agree(untouched):
    found = load_settings(untouched)
    assert found.problems == (24,) and found.rounds == 2
    with pytest.raises(StoreError, match="other settings .*lr"):
        load_settings(untouched, Settings(**{**found.__dict__, "lr": 1.0}))
    assert load_settings(untouched, Settings(**{**found.__dict__, "rounds": 3})).rounds == 3
    with pytest.raises(StoreError, match="a run of 2 rounds"):
        load_settings(untouched, Settings(**{**found.__dict__, "rounds": 1}))
    assert {"cpu", "torch", "torch_threads"} <= set(
        json.loads((untouched / "config.json").read_text())["machine"]
    )


def test_nothing_in_the_loop_reads_gold_programs(untouched, monkeypatch):
    import rstar_nb.evolve.loop as evolve
    import rstar_nb.problems.generator as problems

    def forbidden(id):
        raise AssertionError("a gold program was read")

    for module in (problems, evolve):
        monkeypatch.setattr(module, "gold_program", forbidden)
    from rstar_nb.evolve.run import Run
    from rstar_nb.evolve.searching import is_solved, search_wave
    from rstar_nb.executor.pool import Executor
    from rstar_nb.policy.policy import Policy

    settings = load_settings(untouched)
    with Executor(workers=1, preload=()) as executor:
        trees, solved_by = search_wave(
            Run(untouched, settings, executor, quiet=True),
            1,
            problems.generate(4, levels=[1]),
            Policy.load(untouched / "round_2" / "policy"),
            None,
            (4, 0),
        )
    assert [is_solved(t) for t in trees] == [by is not None for by in solved_by] and len(trees) == 4


def test_what_is_solved_in_part_is_drawn_most():
    rows = [
        dict(level=l, subject="story", solved=i < n)
        for l, n in ((2, 9), (3, 3), (4, 0))
        for i in range(9)
    ] + [dict(level=2, subject="equation", solved=i < 2) for i in range(4)]
    weights = draw_weights(rows, range(2, 6))
    assert weights[2, "story"] == weights[4, "story"] == weights[5, "story"] == 0.05 and weights[
        3, "story"
    ] == pytest.approx(3**-0.5 * 2 / 3)
    assert weights[3, "equation"] == pytest.approx(0.375) and weights[
        4, "equation"
    ] == pytest.approx(0.125**0.5 * 0.875)  # a quarter and an eighth solved, it supposes
    assert set(weights) == {(l, s) for l in range(2, 6) for s in SUBJECTS}


def test_resume_without_a_run(tmp_path):
    with pytest.raises(StoreError, match="start the run without --resume"):
        evolve(tmp_path / "none", resume=True)


@pytest.mark.parametrize(
    "text, message",
    [
        ("rollout=3", "unknown setting"),
        ("rounds=two", "does not fit"),
        ("lr", "unknown setting"),
        ("allow_weak_sandbox=maybe", "does not fit"),
    ],
)
def test_bad_settings(text, message):
    with pytest.raises(ValueError, match=message):
        parse_settings([text])
