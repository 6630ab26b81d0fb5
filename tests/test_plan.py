"""Memory counted against tensors that are alive, and the table."""

import json
import re
import weakref
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from rstar_nb.policy.memory import (
    adapter_bytes,
    kv_bytes,
    rows_that_fit,
    search_bytes,
    training_bytes,
)
from rstar_nb.policy.plan import CARDS, Work, hours_at, plan, plan_text, speed
from rstar_nb.policy.presets import ModelError
from rstar_nb.policy.shapes import SHAPES, shape_of, weight_bytes
from rstar_nb.policy.tiny import train_tokenizer
from rstar_nb.policy.weights import load_base
from rstar_nb.training.adapters import AdapterPolicy, SharedBase
from rstar_nb.training.loop import train_loop
from rstar_nb.training.sft import solution_loss

SIZES = dict(
    llama=dict(
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=2,
    ),
    qwen2=dict(
        hidden_size=384,
        intermediate_size=2048,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=1,
    ),
)
KINDS = dict(llama=(LlamaForCausalLM, LlamaConfig), qwen2=(Qwen2ForCausalLM, Qwen2Config))


class LiveTensors(TorchDispatchMode):
    """Bytes of tensor storages made inside the block, at the worst moment."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.seen = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for t in torch.utils._pytree.tree_leaves((args, kwargs)):
            if isinstance(t, torch.Tensor):
                self.seen.add(t.untyped_storage())  # weights were there before
        out = func(*args, **(kwargs or {}))
        for t in torch.utils._pytree.tree_leaves(out):
            if (
                isinstance(t, torch.Tensor)
                and (s := t.untyped_storage()) not in self.seen
                and s.nbytes()
            ):
                self.seen.add(s)
                self.now += s.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(s, self.gone, s.nbytes())
        return out

    def gone(self, size):
        self.now -= size


@pytest.fixture(scope="module", params=KINDS)
def base(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    model, config = KINDS[request.param]
    model(
        config(
            vocab_size=4096,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            pad_token_id=0,
            eos_token_id=1,
            **SIZES[request.param],
        )
    ).save_pretrained(folder)
    train_tokenizer(["# a step\nanswer = 1 + 2\n\n"], 600).save_pretrained(folder)
    base = SharedBase(*load_base(folder, device="cpu"), str(folder))
    base.fresh("ppm")
    return base


def test_the_measure_counts_what_is_alive():
    with LiveTensors() as live:
        a = torch.zeros(1000)
        b = a + 1
        del b
        c = a.view(10, 100)
    assert (live.now, live.peak) == (4000, 8000) and c.shape == (10, 100)
    weight = torch.zeros(1000)
    with LiveTensors() as live:
        view = weight.view(10, 100).t()
    assert live.peak == 0 and view.shape == (100, 10), (
        "a view of what was there before is nothing new"
    )


@pytest.mark.parametrize("batch, context", [(4, 256), (8, 96)])
def test_training_memory_within_15_percent(base, batch, context):
    shape, ids = shape_of(base.model.config), [5] * context

    def train(steps):
        with base.training("policy"):
            train_loop(
                base.parameters("policy"),
                lambda i: solution_loss(base.model, [(ids, context // 2)] * batch)[0],
                steps,
                1e-4,
            )

    train(1)
    with LiveTensors() as live:
        train(2)
    planned = (
        weight_bytes(shape) + adapter_bytes(shape, 16) + training_bytes(shape, batch, context, 16)
    )
    assert planned / (base.model.get_memory_footprint() + live.peak) == pytest.approx(1, abs=0.15)


def test_search_memory_within_15_percent(base):
    shape, rows, k, context, step = shape_of(base.model.config), 32, 4, 256, 32
    policy = AdapterPolicy(base, max_rows=rows, max_step_tokens=step)
    policy.encode = lambda question, steps=(): [5] * context
    with LiveTensors() as live:
        policy.propose([("", [])] * (rows // k), k, range(rows // k))
    planned = (
        weight_bytes(shape)
        + 8 * shape.adapter_weights(16)
        + search_bytes(shape, rows, k, context, step)
    )
    assert planned / (base.model.get_memory_footprint() + live.peak) == pytest.approx(1, abs=0.15)


def test_the_cache_is_what_transformers_keeps(base):
    shape = shape_of(base.model.config)
    with torch.inference_mode():
        cache = base.model(torch.full((2, 50), 5), use_cache=True).past_key_values
    assert sum(
        t.numel() * t.element_size() for layer in cache.layers for t in (layer.keys, layer.values)
    ) == kv_bytes(shape, 100)


def test_what_fits_fits_and_one_more_does_not():
    s = SHAPES["qwen2.5-math-7b"]
    rows = rows_that_fit(s, 12e9, 8, 2048, 256, 16)

    def used(r):
        return (
            0.8e9 + weight_bytes(s) + 8 * s.adapter_weights(16) + search_bytes(s, r, 8, 2048, 256)
        )

    assert rows % 8 == 0 and 0 < rows < 512 and used(rows) <= 12e9 < used(rows + 8)
    assert rows_that_fit(s, 5e9, 8, 2048, 256, 16) == 0


def test_the_table():
    rows = plan("qwen2.5-math-7b")
    assert [r["gpu"] for r in rows] == [8, 12, 16, 24, 48, 80] == [c.memory for c in CARDS]
    assert rows[-1]["fits"] and rows[-1]["hours"] < rows[3]["hours"]
    assert all(a["batch"] <= b["batch"] for a, b in zip(rows, rows[1:]))
    assert plan("qwen2.5-math-1.5b")[0]["fits"]
    twice = plan("qwen2.5-math-7b", Work(problems=2000), memory=80)[0]["hours"]
    assert twice == pytest.approx(
        2 * plan("qwen2.5-math-7b", Work(problems=1000), memory=80)[0]["hours"]
    )
    assert not plan("qwen2.5-math-7b", memory=4)[0]["fits"]
    text = plan_text("qwen2.5-math-7b", memory=4)
    assert "does not fit" in text and "not a measurement" in text
    with pytest.raises(ModelError, match="nothing to plan"):
        plan("tiny")


def test_speed_is_the_slower_limit():
    s, card = SHAPES["qwen2.5-math-7b"], CARDS[-1]
    few, many = speed(s, card, 2)["generated"], speed(s, card, 4)["generated"]
    assert many == pytest.approx(2 * few), "with few rows memory is the limit, and rows come free"
    assert speed(s, card, 4096)["generated"] == pytest.approx(speed(s, card, 8192)["generated"]), (
        "with many rows arithmetic is"
    )


def test_hours_at_measured_rates():
    work = Work(problems=100)
    tokens, hours = work.tokens(), hours_at(work, 100, 50, 200)
    assert hours["generated"] == pytest.approx(tokens["generated"] / 100 / 3600) and hours[
        "trained"
    ] == pytest.approx(tokens["trained"] / 50 / 3600)


ROOT = Path(__file__).resolve().parent.parent


def test_the_lesson_shows_what_the_records_hold():
    """Work and seconds of the last rounds in the saved output are those of the records."""
    notebook = json.loads((ROOT / "nbs/inside/policy_plan.ipynb").read_text())
    (cell,) = [c for c in notebook["cells"] if "figures/records" in "".join(c["source"])]
    texts = [o["text"] if "text" in o else o["data"]["text/plain"] for o in cell["outputs"]]
    shown = [int(n.replace(",", "")) for t in texts for n in re.findall(r"\d[\d,]*", "".join(t))]
    for name in ("tiny", "smollm2-135m"):
        record = json.loads((ROOT / f"figures/records/evolve_{name}_seed0.json").read_text())
        last = record["rounds"][-1]
        expected = [last["search_tokens"], last["sft_steps"]]
        expected += [round(last["seconds"][phase]) for phase in ("search", "sft")]
        assert set(expected) <= set(shown), (name, expected, shown)


def test_the_command():
    from typer.testing import CliRunner

    from rstar_nb.cli.main import app

    done = CliRunner().invoke(
        app, ["plan", "--model", "qwen2.5-math-7b", "--gpu-memory", "24", "--problems", "500"]
    )
    assert done.exit_code == 0 and "A plan, not a measurement" in done.output
    (row,) = json.loads(done.output.strip().splitlines()[-1])
    assert row["gpu"] == 24 and row["fits"]
