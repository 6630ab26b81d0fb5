"""The base that comes with the package, how it is made, and trainings that go on from a state."""

import copy
import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest
import torch

import rstar_nb.evolve.base as module
import rstar_nb.evolve.tiny as tiny
from rstar_nb.evolve.base import (
    Recipe,
    Stage,
    base_rows,
    make_base,
    shipped_base,
    stage_rows,
)
from rstar_nb.evolve.settings import Settings
from rstar_nb.evolve.tiny import TinyModels
from rstar_nb.executor.pool import Executor
from rstar_nb.measure.accuracy import measure_policy
from rstar_nb.policy.policy import Policy
from rstar_nb.policy.steps import STEP_END, plain_prompt
from rstar_nb.policy.tiny import tiny_model, train_tokenizer
from rstar_nb.problems.generator import generate, gold_program, split_of
from rstar_nb.search.agent import Agent
from rstar_nb.training.loop import Checkpoint
from rstar_nb.training.sft import fine_tune

ROOT = Path(__file__).resolve().parent.parent
ROWS = [dict(question=p.question, steps=gold_program(p.id)) for p in generate(24, levels=[1, 2])]
SMALL = dict(
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=8,
    intermediate_size=16,
)


class Stopped(Exception):
    """A training that is interrupted."""


def stop_after(n):
    """A function for `on_step` that interrupts a training after its n-th step."""
    left = [n]

    def on_step(*args):
        left[0] -= 1
        if not left[0]:
            raise Stopped

    return on_step


def weights(policy):
    return [p.detach().clone() for p in policy.model.parameters()]


def same(some, others):
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


# --- trainings that go on where they were


@pytest.fixture(scope="module")
def fresh():
    """() -> a policy that knows nothing, the same each time."""
    tokenizer = train_tokenizer(
        [plain_prompt(r["question"]) + STEP_END.join(r["steps"]) for r in ROWS]
    )
    model = tiny_model(len(tokenizer), **SMALL)
    return lambda: Policy(copy.deepcopy(model), tokenizer)


@pytest.mark.parametrize("muon_lr", [0.0, 0.02])
def test_a_training_interrupted_at_any_step_ends_as_one_that_was_not(fresh, tmp_path, muon_lr):
    train = partial(fine_tune, rows=ROWS, num_steps=6, batch_size=4, seed=1, muon_lr=muon_lr)
    whole = fresh()
    losses = train(whole)
    assert not same(weights(whole), weights(fresh()))
    for stop in range(1, 6):
        checkpoint = Checkpoint(tmp_path / f"{stop}.pt", every=2)
        with pytest.raises(Stopped):
            train(fresh(), on_step=stop_after(stop), checkpoint=checkpoint)
        made = stop // 2 * 2  # steps that were kept
        assert checkpoint.path.exists() == (made > 0)
        policy = fresh()
        assert train(policy, checkpoint=checkpoint) == losses[made:]
        assert same(weights(policy), weights(whole)), f"stopped after step {stop}"


def test_a_training_without_its_optimisers_state_would_end_otherwise(fresh, tmp_path):
    """What the test above would not notice if the optimisers began anew."""
    checkpoint = Checkpoint(tmp_path / "a.pt", every=2)
    train = partial(fine_tune, rows=ROWS, num_steps=6, batch_size=4, seed=1, muon_lr=0.02)
    whole = fresh()
    train(whole)
    with pytest.raises(Stopped):
        train(fresh(), on_step=stop_after(4), checkpoint=checkpoint)
    state = torch.load(checkpoint.path, weights_only=True)
    assert state["step"] == 4 and len(state["optimizers"]) == 2
    for optimizer in state["optimizers"]:
        optimizer["state"] = {}
    torch.save(state, checkpoint.path)
    policy = fresh()
    train(policy, checkpoint=checkpoint)
    assert not same(weights(policy), weights(whole))


def test_a_state_that_was_torn_while_it_was_written_is_none(fresh, tmp_path):
    """The file has its name only when it is whole."""
    checkpoint = Checkpoint(tmp_path / "a.pt", every=2)
    checkpoint.path.with_suffix(".tmp").write_bytes(b"half of a state")
    policy = fresh()
    losses = fine_tune(policy, ROWS, 4, 4, checkpoint=checkpoint)
    assert len(losses) == 4 and not checkpoint.path.with_suffix(".tmp").exists()
    assert fine_tune(fresh(), ROWS, 4, 4, checkpoint=checkpoint) == []


# --- how the base is made

RECIPE = Recipe(
    stories=60, stages=(Stage(3, 2, 20, 2), Stage(4, 6, 30, 3)), num_layers=1, batch_size=4
)


@pytest.fixture
def small(monkeypatch):
    """A base of few weights, whose state is kept every other step."""
    monkeypatch.setattr(
        module, "tiny_model", lambda size, **layers: tiny_model(size, **{**SMALL, **layers})
    )
    monkeypatch.setattr(module, "Checkpoint", partial(Checkpoint, every=2))


def test_a_stage_sees_the_stories_and_its_own_chains_again_and_again():
    recipe = Recipe(stories=2000, stages=(Stage(1, chains=40), Stage(1, 4, 100, 3)))
    stories, chains = base_rows(recipe)
    assert len(stories) == 2000 and len(chains) == 100
    assert len({r["question"] for r in stories + chains}) == 2100
    for rows in (stories, chains):
        assert {len(r["steps"]) for r in rows} == set(range(1, 7))
    assert {split_of(r["question"], 1) for r in stories + chains} == {"train"}
    first, second = (stage_rows((stories, chains), stage) for stage in recipe.stages)
    assert first == stories + chains[:40] * 8
    assert second == [r for r in stories + chains * 3 if len(r["steps"]) <= 4]


def test_a_base_follows_from_its_recipe_wherever_its_making_was_interrupted(small, tmp_path):
    whole = weights(make_base(tmp_path / "whole", RECIPE))
    assert {w.dtype for w in whole} == {torch.float16}
    assert same(weights(make_base(tmp_path / "again", RECIPE)), whole)
    for stop in range(1, 7):
        folder = tmp_path / f"stopped_{stop}"
        with pytest.raises(Stopped):
            make_base(folder, RECIPE, on_step=stop_after(stop))
        assert same(weights(make_base(folder, RECIPE)), whole), f"stopped after step {stop}"


def test_the_stages_of_a_base_have_their_own_lengths(small, tmp_path, monkeypatch):
    taught = []

    def noted(policy, rows, num_steps, *rest, **options):
        taught.append((num_steps, max(len(r["steps"]) for r in rows)))

    monkeypatch.setattr(module, "fine_tune", noted)
    make_base(tmp_path, RECIPE)
    assert taught == [(3, 2), (4, 6)]


# --- the base that comes with the package


@pytest.fixture(scope="module")
def shipped():
    return shipped_base()


def test_the_shipped_base_is_the_one_of_its_record(shipped):
    record = json.loads((ROOT / "figures" / "records" / "base.json").read_text())
    assert sum(p.numel() for p in shipped.model.parameters()) == record["weights"] < 1_200_000
    assert {p.dtype for p in shipped.model.parameters()} == {torch.float32}
    assert record["recipe"] == json.loads(json.dumps(asdict(Recipe())))


def test_the_shipped_base_answers_easy_problems_and_few_hard_ones(shipped):
    """Weak, as a base should be: search has something to find."""
    right = {}
    with Executor(workers=2, preload=()) as executor:
        for level in (1, 6):
            problems = generate(40, "test", seed=41, levels=[level], kind="mix")
            rows = measure_policy(Agent(shipped, executor), problems)
            right[level] = sum(r["correct"] for r in rows)
    assert right[1] >= 28 and 0 <= right[6] <= 16, right


def test_a_run_begins_with_the_shipped_base_and_learns_from_its_own_programs(shipped):
    models = TinyModels()
    settings = Settings().with_values({"base.source": "shipped"})
    assert same(weights(models.first_policy(settings)), weights(shipped))
    assert models.seed_rows(settings, 1) == []


def test_a_run_may_train_its_base_from_nothing(monkeypatch):
    def forbidden():
        raise AssertionError("the shipped base was loaded")

    monkeypatch.setattr(tiny, "shipped_base", forbidden)
    settings = Settings().with_values(
        {"base.source": "trained", "base.examples": 24, "base.num_steps": (2, 1)}
    )
    models = TinyModels(make_model=lambda size, seed: tiny_model(size, seed=seed, **SMALL))
    steps = []
    policy = models.first_policy(settings, on_step=lambda *at: steps.append(at))
    assert len(steps) == 3 and policy.model.config.hidden_size == 16
    rows = models.seed_rows(settings, 1)
    assert len(rows) == 24
    assert [r["question"] for r in rows] != [r["question"] for r in models.seed_rows(settings, 2)]
