"""The loop's models as adapters on one 4-bit base: a round, resumed, taken away."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from rstar_nb.evolve.export import model_card, take_away
from rstar_nb.evolve.loop import evolve
from rstar_nb.evolve.pretrained import PretrainedModels, preset_settings
from rstar_nb.evolve.settings import Settings
from rstar_nb.evolve.tiny import seed_rows
from rstar_nb.policy.policy import Policy
from rstar_nb.policy.presets import PRESETS, ModelError, preset
from rstar_nb.policy.prompts import StepPrompt
from rstar_nb.policy.steps import STEP_END, plain_prompt
from rstar_nb.policy.tiny import tiny_model, train_tokenizer
from rstar_nb.problems.files import save_problems
from rstar_nb.problems.generator import generate
from rstar_nb.store import read_lines
from rstar_nb.training.sft import fine_tune


class PlainPrompt(StepPrompt):
    """The base below was trained on questions and programs alone."""

    def __call__(self, question):
        return plain_prompt(question)


class PlainModels(PretrainedModels):
    def prompt(self, shots):
        return PlainPrompt(self.base.tokenizer, shots, self.chat)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A base that solves some problems of one step, and a file of problems for training and for testing."""
    path = tmp_path_factory.mktemp("base")
    rows = seed_rows(Settings(seed_solutions=600), 4, (1,))
    tokenizer = train_tokenizer(
        [plain_prompt(r["question"]) + STEP_END.join(r["steps"]) + STEP_END for r in rows]
    )
    policy = Policy(tiny_model(len(tokenizer), max_position_embeddings=1024), tokenizer)
    fine_tune(policy, rows, 300, 16, 2e-3)
    policy.save(path)
    save_problems(generate(16, "train", 5, (1,)), path / "train.jsonl")
    save_problems(generate(12, "test", 5, (1,)), path / "test.jsonl")
    return path


def settings(folder, **changes):
    small = dict(
        seed_solutions=0,
        base_steps=(0, 0),
        rounds=2,
        problems=(16,),
        carry=0,
        wave=8,
        rollouts=(3,),
        more_rollouts=(4, 5),
        candidates=(3,),
        ppm_from=2,
        max_depth=4,
        temperature=1.0,
        top_k=0,
        sft_from="base",
        sft_passes=0.1,
        sft_at_least=6,
        sft_at_most=6,
        ppm_steps=(4,),
        batch_size=4,
        pair_batch=4,
        test_problems=12,
        search_problems=6,
        eval_rollouts=2,
        eval_candidates=2,
        workers=1,
        problem_file=str(folder / "train.jsonl"),
        test_file=str(folder / "test.jsonl"),
    )
    return Settings(**{**small, **changes})


def models(folder):
    return PlainModels(
        replace(preset(str(folder)), rank=4, alpha=8, max_step_tokens=40), device="cpu"
    )


def test_the_prompt_shows_examples_until_the_first_training(folder, tmp_path):
    m = models(folder)
    policy = m.first_policy(Settings(seed_solutions=0))
    assert policy.prompt.shots == 3
    m.save_policy(policy, tmp_path / "first")
    rows = [dict(problem_id="a", question="2 and 2?", steps=["answer = 2 + 2"])]
    m.fine_tune(policy, rows, 2, 1, 1e-3, 0)
    assert policy.prompt.shots == 0
    m.save_policy(policy, tmp_path / "second")
    assert (
        m.load_policy(tmp_path / "first").prompt.shots == 3
        and m.load_policy(tmp_path / "second").prompt.shots == 0
    )


def test_a_small_base_is_taught_the_format_first(folder):
    m = models(folder)
    s = settings(folder, seed_solutions=24, base_steps=(3, 0))
    policy = m.first_policy(s)
    assert policy.prompt.shots == 0 and any(
        v.abs().sum() > 0 for k, v in m.base.weights("policy").items() if "lora_B" in k
    )
    first, second = m.seed_rows(s, 0), m.seed_rows(s, 1)
    assert not any(
        "# (" in step for r in first for step in r["steps"]
    )  # its prompt does not number sentences
    assert (
        len(first) == len(second) == 12
        and {len(r["steps"]) for r in first} <= {1, 2, 3}
        and first != second
        and m.seed_rows(settings(folder), 1) == []
    )


def test_the_first_round_learns_from_well_formed_rows_only(folder):
    m = models(folder)
    rows = [dict(steps=["answer = 16"]), dict(steps=["answer = 4 * 4"])]
    assert m.choose(rows, 1) == rows[1:] and m.choose(rows, 2) == rows


def test_rows_longer_than_the_context_are_left_out(folder):
    m = models(folder)
    m.preset = replace(m.preset, context=60)
    m.first_policy(Settings(seed_solutions=0))
    long = dict(problem_id="b", question="word " * 200, steps=["answer = 1"])
    assert (
        len(
            m.fine_tune(
                m.policy,
                [dict(problem_id="a", question="2?", steps=["answer = 2 + 2"]), long],
                1,
                2,
                1e-3,
                0,
            )
        )
        == 1
    )
    with pytest.raises(ValueError, match="no solution was selected"):
        m.fine_tune(m.policy, [long], 1, 2, 1e-3, 0)


@pytest.mark.parametrize("name", [n for n in PRESETS if n != "tiny"])
def test_preset_settings_yield_to_the_users(name):
    assert (
        preset_settings(PRESETS[name], rounds=7).rounds == 7
        and preset_settings(PRESETS[name]).sft_from == "base"
    )


class TestLoop:
    @pytest.fixture(scope="class")
    def run(self, folder, tmp_path_factory):
        out = tmp_path_factory.mktemp("runs") / "whole"
        evolve(out, settings(folder), quiet=True, models=models(folder))
        return out

    def test_two_rounds_end_to_end(self, run):
        metrics = read_lines(run / "metrics.jsonl")
        assert [m["round"] for m in metrics] == [0, 1, 2] and metrics[1]["selected"] > 0
        for k in (1, 2):
            assert (run / f"round_{k}" / "policy" / "adapter_model.safetensors").is_file() and (
                run / f"round_{k}" / "ppm" / "value_head.safetensors"
            ).is_file()
        assert json.loads((run / "config.json").read_text())["preset"]

    @pytest.mark.parametrize(
        "lost",
        [
            ("round_1/ppm", "round_1/eval.jsonl"),
            ("round_1/policy", "round_1/ppm", "round_1/eval.jsonl"),
            (
                "round_1/search.jsonl",
                "round_1/selected.jsonl",
                "round_1/pairs.jsonl",
                "round_1/policy",
                "round_1/ppm",
                "round_1/eval.jsonl",
            ),
        ],
    )
    def test_a_resumed_run_ends_as_one_that_was_not_stopped(self, run, folder, tmp_path, lost):
        again = shutil.copytree(run, tmp_path / "again")
        shutil.rmtree(again / "round_2")
        for name in lost:
            shutil.rmtree(again / name) if (again / name).is_dir() else (again / name).unlink()
        (again / "metrics.jsonl").write_bytes(
            (run / "metrics.jsonl").read_bytes().split(b"\n")[0] + b"\n"
        )
        evolve(again, settings(folder), resume=True, quiet=True, models=models(folder))
        for k in (1, 2):
            for name in (
                "search.jsonl",
                "selected.jsonl",
                "pairs.jsonl",
                "eval.jsonl",
                "policy/adapter_model.safetensors",
                "ppm/adapter_model.safetensors",
                "ppm/value_head.safetensors",
            ):
                assert (again / f"round_{k}" / name).read_bytes() == (
                    run / f"round_{k}" / name
                ).read_bytes(), (k, name)

    def test_taken_away_with_a_card(self, run, folder, tmp_path):
        out = take_away(run, tmp_path / "out", merge=True, base=folder)
        card = (out / "README.md").read_text()
        assert (
            "Nobody wrote a solution" in card
            and f"base_model: {folder}" in card
            and "| round |" in card
            and "95 % Wilson" in card
            and card.count("\n| ") >= 3
        )
        from transformers import AutoModelForCausalLM

        assert isinstance(AutoModelForCausalLM.from_pretrained(out / "merged"), torch.nn.Module)
        assert (out / "ppm" / "value_head.safetensors").is_file() and not (
            out / "policy" / "complete.json"
        ).exists()


def test_nothing_to_take_away(tmp_path):
    with pytest.raises(ModelError, match="no finished round"):
        take_away(tmp_path, tmp_path / "out")
    (tmp_path / "config.json").write_text(json.dumps(dict(settings={}, machine={})))
    with pytest.raises(ModelError, match="no finished round"):
        model_card(tmp_path)
