"""One frozen 4-bit base, two adapters and a head: trained, switched, saved, merged; no mocks."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from rstar_nb.policy.policy import Policy
from rstar_nb.policy.presets import ModelError
from rstar_nb.policy.steps import STEP_END, plain_prompt
from rstar_nb.policy.tiny import train_tokenizer
from rstar_nb.policy.weights import load_base
from rstar_nb.problems.generator import generate, gold_program
from rstar_nb.reward.adapters import AdapterRewardModel, fit_adapter, load_ppm, pairs_within
from rstar_nb.reward.heads import READS
from rstar_nb.reward.pairs import pair_accuracy
from rstar_nb.training.adapters import (
    AdapterPolicy,
    SharedBase,
    fine_tune_adapter,
    merge_adapter,
    read_adapter,
    rows_within,
)

ROWS = [
    dict(problem_id=p.id, question=p.question, steps=gold_program(p.id))
    for p in generate(48, levels=(1, 2))
]
PAIRS = [
    dict(
        problem_id=r["problem_id"],
        question=r["question"],
        better=r["steps"],
        worse=["answer = 1"],
        kind="final",
    )
    for r in ROWS
]
PREFIXES = [(r["question"], r["steps"]) for r in ROWS[:4]]
KINDS = dict(llama=(LlamaForCausalLM, LlamaConfig), qwen2=(Qwen2ForCausalLM, Qwen2Config))


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory):
    tokenizer = train_tokenizer(
        [plain_prompt(r["question"]) + STEP_END.join(r["steps"]) + STEP_END for r in ROWS]
    )
    model, config = KINDS[request.param]
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp(request.param)
    model(
        config(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=640,
            tie_word_embeddings=True,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=1,
        )
    ).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def base(folder):
    return SharedBase(*load_base(folder, device="cpu"), str(folder), rank=4, alpha=8)


def clone(base, name):
    return {k: v.clone() for k, v in base.weights(name).items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def logits(base, name):
    base.use(name)
    with torch.inference_mode():
        return base.model(torch.arange(40)[None] + 5).logits.float()


def test_lora_sits_on_all_linear_layers_of_the_blocks_and_nowhere_else(base):
    adapted = {
        n.rsplit(".lora_A")[0].split(".")[-1]
        for n, _ in base.peft.named_parameters()
        if "lora_A" in n
    }
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert all(p.dtype == torch.float32 for p in base.parameters("policy"))


def test_a_fresh_adapter_is_the_base_and_a_seed_repeats_it(base, folder):
    plain, _ = load_base(folder, device="cpu")
    with torch.inference_mode():
        expected = plain(torch.arange(40)[None] + 5).logits.float()
    assert torch.equal(logits(base, "policy"), expected)
    base.fresh("policy", seed=3)
    first = clone(base, "policy")
    base.fresh("policy", seed=4)
    assert not same(first, clone(base, "policy"))
    base.fresh("policy", seed=3)
    assert same(first, clone(base, "policy"))


def test_fresh_forgets_training(base):
    expected = logits(base, "policy")
    fine_tune_adapter(AdapterPolicy(base), ROWS, num_steps=2, lr=1e-2)
    assert not torch.equal(logits(base, "policy"), expected)
    base.fresh("policy")
    assert torch.equal(logits(base, "policy"), expected)


def test_training_learns_and_moves_one_adapter_only(base):
    base.fresh("other", seed=1)
    policy = AdapterPolicy(base)
    frozen = {n: p.detach().clone() for n, p in base.peft.named_parameters() if "lora_" not in n}
    other = clone(base, "other")
    losses = fine_tune_adapter(policy, ROWS, num_steps=25, batch_size=8, lr=1e-2)
    assert sum(losses[-3:]) < 0.95 * sum(
        losses[:3]
    )  # the base is random and frozen, so an adapter cannot do much
    assert same(other, base.weights("other"))
    assert all(
        torch.equal(p, frozen[n]) for n, p in base.peft.named_parameters() if "lora_" not in n
    )


def test_checkpointing_changes_memory_and_not_the_result(folder):
    runs = []
    for checkpointing in (True, False):
        base = SharedBase(
            *load_base(folder, device="cpu"),
            str(folder),
            rank=4,
            alpha=8,
            checkpointing=checkpointing,
        )
        kept = 0

        def pack(t):
            nonlocal kept
            kept += t.numel() * t.element_size()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            runs.append((fine_tune_adapter(AdapterPolicy(base), ROWS, 3, 4, lr=1e-3), kept))
    (with_it, kept_with), (without, kept_without) = runs
    assert with_it == pytest.approx(without, abs=2e-3)
    assert kept_with < 0.7 * kept_without, "checkpointing saved nothing"


def test_policy_and_ppm_take_turns(base):
    policy = AdapterPolicy(base, max_step_tokens=24)
    fine_tune_adapter(policy, ROWS, num_steps=6, lr=1e-2)
    ppm = AdapterRewardModel(policy)
    assert same(base.weights("policy"), base.weights("ppm")), (
        "a PPM starts from the policy's weights"
    )
    assert ppm.score(PREFIXES) == [0.0] * 4
    before, weights = policy.propose([(ROWS[0]["question"], [])], 3, [7]), clone(base, "policy")
    fit_adapter(ppm, PAIRS, num_steps=15, lr=3e-3)
    right, n = pair_accuracy(ppm, PAIRS)["final"]
    assert right / n > 0.9
    scores = ppm.score(PREFIXES)
    assert policy.propose([(ROWS[0]["question"], [])], 3, [7]) == before and same(
        weights, base.weights("policy")
    )
    assert ppm.score(PREFIXES) == scores and not same(base.weights("policy"), base.weights("ppm"))


def test_a_round_after_generation_trains_as_a_fresh_process_would(folder):
    """Search, then training, in one memory: the losses of a base that never generated."""

    def losses(generate_first):
        base = SharedBase(*load_base(folder, device="cpu"), str(folder), rank=4, alpha=8)
        policy = AdapterPolicy(base, max_step_tokens=8)
        if generate_first:
            policy.propose([(ROWS[0]["question"], [])], 2, [0])
        return fine_tune_adapter(policy, ROWS, num_steps=5, lr=1e-2)

    assert losses(True) == losses(False)


def test_rounds_do_not_grow_memory(base):
    policy = AdapterPolicy(base)
    counts = []
    for k in range(3):
        base.fresh("policy", seed=k)
        AdapterRewardModel(policy)
        counts.append(sum(p.numel() for p in base.peft.parameters()))
    assert len(set(counts)) == 1


def test_save_and_load(base, folder, tmp_path):
    policy = AdapterPolicy(base, max_step_tokens=24)
    fine_tune_adapter(policy, ROWS, num_steps=4, lr=1e-2)
    ppm = AdapterRewardModel(policy)
    torch.nn.init.normal_(ppm.head.weight)
    policy.save(tmp_path / "policy")
    ppm.save(tmp_path / "ppm")
    expected = policy.propose([(ROWS[0]["question"], [])], 2, [1]), ppm.score(PREFIXES)
    other = SharedBase(*load_base(folder, device="cpu"), str(folder), rank=4, alpha=8)
    again = AdapterPolicy(other, max_step_tokens=24)
    read_adapter(other, "policy", tmp_path / "policy")
    found = load_ppm(again, tmp_path / "ppm")
    assert (again.propose([(ROWS[0]["question"], [])], 2, [1]), found.score(PREFIXES)) == expected
    with pytest.raises(ModelError, match="this is no PPM"):
        load_ppm(again, tmp_path / "policy")
    with pytest.raises(ModelError, match="no adapter there"):
        read_adapter(other, "policy", tmp_path)


@pytest.mark.parametrize("reads", READS)
def test_a_saved_head_is_loaded_as_what_it_was(base, tmp_path, reads):
    policy = AdapterPolicy(base)
    ppm = AdapterRewardModel(policy, reads=READS[reads])
    torch.nn.init.normal_(ppm.head.weight)
    ppm.save(tmp_path)
    names = {"weight", "bias"} | ({"alpha"} if reads == "likelihood" else set())
    assert load_file(str(tmp_path / "value_head.safetensors")).keys() == names
    again = load_ppm(policy, tmp_path, "other")
    assert type(again.head) is READS[reads] and again.score(PREFIXES) == ppm.score(PREFIXES)
    assert len(again.parameters()) == len(ppm.parameters())
    assert any(p is w for p in again.parameters() for w in again.head.parameters())


def test_what_is_longer_than_the_context_is_left_out_and_counted(base):
    policy = AdapterPolicy(base)
    ppm = AdapterRewardModel(policy)
    lengths = [len(policy.encode(r["question"], r["steps"])) for r in ROWS]
    context = sorted(lengths)[len(lengths) // 2]
    too_long = sum(n > context for n in lengths)
    assert 0 < too_long < len(ROWS)
    short, left_out = pairs_within(ppm, PAIRS, context)
    assert left_out == too_long and len(short) == len(ROWS) - too_long
    swapped = [dict(p, better=p["worse"], worse=p["better"]) for p in PAIRS]
    assert pairs_within(ppm, swapped, context)[1] == too_long, "both sides must fit"
    assert rows_within(policy, ROWS, context)[1] == too_long
    assert (
        pairs_within(ppm, PAIRS, None) == (PAIRS, 0) == (PAIRS, rows_within(policy, ROWS, None)[1])
    )
    seen, scores = [], ppm.scores
    ppm.scores = lambda encoded: seen.extend(len(ids) for ids, _ in encoded) or scores(encoded)
    told = []
    fit_adapter(ppm, PAIRS, num_steps=12, context=context, on_left_out=told.append)
    assert told == [too_long] and max(seen) <= context
    fine_tune_adapter(policy, ROWS, num_steps=2, context=context, on_left_out=told.append)
    assert told == [too_long] * 2
    with pytest.raises(ValueError, match="48 are longer than 3"):
        fit_adapter(ppm, PAIRS, num_steps=2, context=3)


def test_an_adapter_of_another_base_is_refused(base, folder, tmp_path):
    AdapterPolicy(base).save(tmp_path / "policy")
    config = json.loads((tmp_path / "policy" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(folder)
    (tmp_path / "policy" / "adapter_config.json").write_text(
        json.dumps(dict(config, base_model_name_or_path="someone/else"))
    )
    with pytest.raises(ModelError, match="trained on someone/else"):
        read_adapter(base, "policy", tmp_path / "policy")
    with pytest.raises(ModelError, match="another rank"):
        base.set_weights("policy", {k: v[:, :1] for k, v in base.weights("policy").items()})
    with pytest.raises(ModelError, match="no adapter 'nobody'"):
        base.use("nobody")


FRESH_PROCESS = """
import json, sys
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer
adapter, merged, ids = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
import torch
assert "rstar_nb" not in sys.modules
out = []
for kind, folder, options in (
    (AutoPeftModelForCausalLM, adapter, {}),
    (AutoModelForCausalLM, merged, dict(dtype=torch.float32)),
):
    model = kind.from_pretrained(folder, **options)
    with torch.inference_mode():
        out.append(model(torch.tensor([ids])).logits[0, -1].float().tolist())
assert len(AutoTokenizer.from_pretrained(merged)) == len(AutoTokenizer.from_pretrained(adapter))
print(json.dumps(out))
"""


def test_plain_libraries_load_adapter_and_merged_weights_in_a_fresh_process(base, folder, tmp_path):
    policy = AdapterPolicy(base)
    fine_tune_adapter(policy, ROWS, num_steps=10, lr=1e-2)
    policy.save(tmp_path / "policy")
    merge_adapter(folder, tmp_path / "policy", tmp_path / "merged")
    ids = policy.encode(ROWS[0]["question"], ROWS[0]["steps"])[:40]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            FRESH_PROCESS,
            tmp_path / "policy",
            tmp_path / "merged",
            json.dumps(ids),
        ],
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    n = min(map(len, found))  # peft sizes the vocabulary by the tokenizer
    adapter, merged = torch.tensor([row[:n] for row in found])
    base.use("policy")
    with torch.inference_mode():
        trained = base.model(torch.tensor([ids])).logits[0, -1, :n].float()
    untrained = AutoModelForCausalLM.from_pretrained(folder)
    with torch.inference_mode():
        before = untrained(torch.tensor([ids])).logits[0, -1, :n]

    def near(a, b):
        return torch.nn.functional.cosine_similarity(a, b, 0)

    assert near(adapter, merged) > 0.999, "merging is the adapter's own arithmetic, up to rounding"
    assert near(adapter, trained) > 0.95 > near(before, trained), (
        "and both are what was trained, up to NF4's rounding"
    )


def test_merged_into_the_weights_it_was_trained_on_is_closer(base, folder, tmp_path):
    policy = AdapterPolicy(base)
    fine_tune_adapter(policy, ROWS, num_steps=10, lr=1e-2)
    policy.save(tmp_path / "policy")
    trained, ids = logits(base, "policy"), torch.arange(40)[None] + 5

    def distance(as_trained):
        model = AutoModelForCausalLM.from_pretrained(
            merge_adapter(folder, tmp_path / "policy", tmp_path / str(as_trained), as_trained),
            dtype=torch.float32,
        )
        with torch.inference_mode():
            return (model(ids).logits - trained).abs().mean()

    assert distance(True) < distance(False)


def test_a_merged_ppm_keeps_its_head(base, folder, tmp_path):
    ppm = AdapterRewardModel(AdapterPolicy(base))
    torch.nn.init.normal_(ppm.head.weight)
    ppm.save(tmp_path / "ppm")
    merged = merge_adapter(folder, tmp_path / "ppm", tmp_path / "merged")
    assert torch.equal(load_file(str(merged / "value_head.safetensors"))["weight"], ppm.head.weight)
    assert isinstance(Policy.load(merged), Policy)
