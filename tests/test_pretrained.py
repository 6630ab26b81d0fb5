"""The loop's models as adapters on one 4-bit base: a round, resumed, exported."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from rstar_nb.evolve.export import export_run, model_card
from rstar_nb.evolve.loop import evolve
from rstar_nb.evolve.pretrained import PretrainedModels, preset_settings
from rstar_nb.evolve.settings import Settings, setting_fields
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
    """A base that solves one-step problems now and then, and files of problems."""
    path = tmp_path_factory.mktemp("base")
    rows = seed_rows(Settings().with_values({"base.examples": 600}), 4, (1,))
    tokenizer = train_tokenizer(
        [plain_prompt(r["question"]) + STEP_END.join(r["steps"]) + STEP_END for r in rows]
    )
    policy = Policy(tiny_model(len(tokenizer), max_position_embeddings=1024), tokenizer)
    fine_tune(policy, rows, 300, 16, 2e-3)
    policy.save(path)
    save_problems(generate(16, "train", 5, (1,)), path / "train.jsonl")
    save_problems(generate(12, "test", 5, (1,)), path / "test.jsonl")
    return path


WITHOUT_EXAMPLES = Settings().with_values({"base.examples": 0})


def settings(folder, changes=None):
    small = {
        "rounds": 2,
        "base.examples": 0,
        "base.num_steps": (0, 0),
        "problems.number": (16,),
        "problems.carry": 0,
        "problems.train_file": str(folder / "train.jsonl"),
        "problems.test_file": str(folder / "test.jsonl"),
        "search.wave": 8,
        "search.rollouts": (3,),
        "search.candidates": (3,),
        "search.ppm_from": 2,
        "search.max_depth": 4,
        "search.temperature": 1.0,
        "search.top_k": 0,
        "sft.start_from": "base",
        "sft.passes": 0.1,
        "sft.min_num_steps": 6,
        "sft.max_num_steps": 6,
        "sft.batch_size": 4,
        "reward.num_steps": (4,),
        "reward.batch_size": 4,
        "evaluation.problems": 12,
        "evaluation.search_problems": 6,
        "evaluation.rollouts": 2,
        "evaluation.candidates": 2,
        "machine.workers": 1,
        "machine.processes": 1,
    }
    return Settings().with_values({**small, **(changes or {})})


def models(folder):
    return PlainModels(
        replace(preset(str(folder)), rank=4, alpha=8, max_step_tokens=40), device="cpu"
    )


def test_the_prompt_shows_examples_until_the_first_training(folder, tmp_path):
    m = models(folder)
    policy = m.first_policy(WITHOUT_EXAMPLES)
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
    s = settings(folder, {"base.examples": 24, "base.num_steps": (3, 0)})
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
    m.first_policy(WITHOUT_EXAMPLES)
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


def test_pairs_longer_than_the_context_are_left_out(folder, monkeypatch):
    import rstar_nb.evolve.pretrained as pretrained

    m = models(folder)
    m.preset = replace(m.preset, context=60)
    m.first_policy(WITHOUT_EXAMPLES)
    m.policy.prompt = m.prompt(0)
    taught = []

    def fit_adapter(ppm, pairs, *rest):
        taught.extend(pairs)
        return []

    monkeypatch.setattr(pretrained, "fit_adapter", fit_adapter)

    def pair(question="2?", better="answer = 2 + 2", worse="answer = 3"):
        return dict(problem_id="a", question=question, better=[better], worse=[worse], kind="final")

    long = "answer = " + " + ".join(["2"] * 100)
    short = pair()
    pairs = [short, pair(better=long), pair(worse=long), pair(question="word " * 200), short]
    m.fit_pairs(m.new_ppm(m.policy), pairs, 1, 2, 1e-3, 0)
    assert taught == [short, short]
    # A pair whose longer side is exactly as long as the context is kept.
    length = max(len(m.policy.encode("2?", short[side])) for side in ("better", "worse"))
    for context, kept in ((length, 2), (length - 1, 0)):
        taught.clear()
        m.preset = replace(m.preset, context=context)
        m.fit_pairs(m.new_ppm(m.policy), pairs, 1, 2, 1e-3, 0)
        assert len(taught) == kept


PRETRAINED = [name for name in PRESETS if name != "tiny"]

# What suits a model of a million weights and not one of a hundred million or more.
TUNED_TO_THE_TINY_MODEL = {
    "rounds",
    "base.source",
    "base.examples",
    "base.num_steps",
    "problems.number",
    "problems.carry",
    "search.wave",
    "search.expansion",
    "search.rule",
    "search.rollouts",
    "search.solved_rollouts",
    "search.candidates",
    "search.max_depth",
    "search.max_tokens",
    "search.temperature",
    "search.top_k",
    "sft.start_from",
    "sft.passes",
    "sft.min_num_steps",
    "sft.max_num_steps",
    "sft.batch_size",
    "sft.lr",
    "sft.muon_lr",
    "reward.num_steps",
    "reward.batch_size",
    "reward.lr",
    "evaluation.problems",
    "evaluation.search_problems",
    "evaluation.rollouts",
    "evaluation.candidates",
    "machine.processes",
    "machine.timeout",
}


@pytest.mark.parametrize("name", PRETRAINED)
def test_preset_settings_yield_to_the_users(name):
    preferred = preset_settings(PRESETS[name])
    changed = preset_settings(PRESETS[name], {"rounds": 7, "search.rollouts": (2,)})
    assert changed.rounds == 7 and changed.search.rollouts == (2,)
    assert changed.sft.start_from == preferred.sft.start_from == "base"
    assert preferred.search.rollouts == PRESETS[name].settings["search.rollouts"]


@pytest.mark.parametrize("name", PRETRAINED)
def test_a_preset_names_every_value_it_does_not_take_from_the_tiny_default(name):
    named = PRESETS[name].settings
    assert set(named) <= set(setting_fields()), "a preset names a setting that there is not"
    assert TUNED_TO_THE_TINY_MODEL <= set(named)
    values = preset_settings(PRESETS[name]).values()
    assert {n: values[n] for n in named} == named


def test_presets_name_the_same_settings():
    assert len({frozenset(PRESETS[name].settings) for name in PRETRAINED}) == 1
    assert PRESETS["tiny"].settings == {}


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

    def test_exported_with_a_card(self, run, folder, tmp_path):
        out = export_run(run, tmp_path / "out", merge=True, base=folder)
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


def test_nothing_to_export(tmp_path):
    with pytest.raises(ModelError, match="no finished round"):
        export_run(tmp_path, tmp_path / "out")
    (tmp_path / "config.json").write_text(json.dumps(dict(settings={}, machine={})))
    with pytest.raises(ModelError, match="no finished round"):
        model_card(tmp_path)


def test_exporting_deletes_nothing(tmp_path):
    """A folder with something in it is refused; a run exported onto itself would be lost."""
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(ModelError, match="holds something already"):
        export_run(tmp_path, tmp_path)
    with pytest.raises(ModelError, match="holds something already"):
        export_run(tmp_path, tmp_path / "mine.txt")
    assert (tmp_path / "mine.txt").read_text() == "keep me"
