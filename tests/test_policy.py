"""The policy proposes exactly what its model says, whoever else is in the batch."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

import rstar_nb.policy.decoding as decoding
import rstar_nb.policy.policy as policy_module
from rstar_nb.policy.policy import Policy
from rstar_nb.policy.sampling import draws, pick_tokens, uniforms
from rstar_nb.policy.steps import STEP_END, derive_seed, is_terminal, plain_prompt
from rstar_nb.policy.tiny import tiny_model, train_tokenizer
from rstar_nb.policy.tokens import Codec, StepEnds
from rstar_nb.problems.generator import generate, gold_program
from rstar_nb.training.loop import inner_matrices, length_batches, train_loop
from rstar_nb.training.sft import fine_tune


@pytest.fixture(scope="module")
def policy():
    texts = [
        plain_prompt(p.question) + STEP_END.join(gold_program(p.id)) + STEP_END
        for p in generate(200)
    ]
    tokenizer = train_tokenizer(texts)
    model = tiny_model(len(tokenizer), seed=1)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(3)  # sharper than a fresh model, so that candidates differ by more than noise
    return Policy(model, tokenizer, max_step_tokens=16, max_rows=40)


QUESTIONS = [p.question for p in generate(18, "test")]


def plain_logprob(policy, prefix, ids):
    with torch.inference_mode():
        logp = policy.model(torch.tensor([prefix + list(ids)])).logits[0].log_softmax(-1)
    return sum(logp[len(prefix) + i - 1, t].item() for i, t in enumerate(ids))


@pytest.mark.parametrize("temperature", [0, 0.7, 1.0])
def test_logprobs_are_exact(policy, temperature):
    for q, cs in zip(
        QUESTIONS, policy.propose([(q, ["x = 1"]) for q in QUESTIONS], 3, range(18), temperature)
    ):
        for c in cs:
            assert c.logprob == pytest.approx(
                plain_logprob(policy, policy.encode(q, ["x = 1"]), c.ids), abs=2e-3
            )


def test_a_prefix_gets_the_same_candidates_alone_and_in_a_batch(policy):
    together = policy.propose([(q, []) for q in QUESTIONS], 4, range(18))
    for i in (0, 7, 17):
        alone = policy.propose([(QUESTIONS[i], [])], 4, [i])[0]
        assert [c.ids for c in alone] == [c.ids for c in together[i]]


def test_long_prefixes_go_in_smaller_batches(policy, monkeypatch):
    sizes, decode = [], policy_module.decode

    def counted(policy, encoded, *rest):
        sizes.append((len(encoded), max(map(len, encoded))))
        return decode(policy, encoded, *rest)

    prefixes = [(q, ["x = 1"] * (10 * (i > 12))) for i, q in enumerate(QUESTIONS)]
    together = policy.propose(prefixes, 2, range(18))
    monkeypatch.setattr(policy_module, "decode", counted)
    monkeypatch.setattr(policy, "max_padded", 400)
    apart = policy.propose(prefixes, 2, range(18))
    assert (
        sum(n for n, _ in sizes) == 18
        and all(n == 1 or n * width <= 400 for n, width in sizes)
        and len({n for n, _ in sizes}) > 1
    )
    assert [[c.ids for c in cs] for cs in apart] == [[c.ids for c in cs] for cs in together]


def test_shared_and_copied_prefixes_agree(policy, monkeypatch):
    shared = policy.propose([(q, []) for q in QUESTIONS[:6]], 3, range(6))
    made = []
    monkeypatch.setattr(decoding, "can_share_prefix", lambda model: made.append(model) or False)
    copied = policy.propose([(q, []) for q in QUESTIONS[:6]], 3, range(6))
    assert made, "the prefix was shared after all"
    assert [[c.ids for c in cs] for cs in shared] == [[c.ids for c in cs] for cs in copied]


def test_top_k_is_an_argument_and_leaves_nothing_behind(policy):
    prefixes = [(q, []) for q in QUESTIONS[:4]]
    first = policy.propose(prefixes, 4, range(4))
    narrow = policy.propose(prefixes, 4, range(4), 1.0, 1)
    greedy = policy.propose(prefixes, 1, range(4), temperature=0)
    assert [[c.ids for c in cs] for cs in narrow] == [[cs[0].ids] * 4 for cs in greedy]
    assert policy.propose(prefixes, 4, range(4)) == first != narrow
    assert not hasattr(policy, "top_k")


@pytest.mark.parametrize("whole", [False, True])
def test_near_the_end_of_the_context_samples_depend_on_their_own_prefix_only(
    policy, monkeypatch, whole
):
    prefixes = [(QUESTIONS[0], ["x = 1"] * n) for n in (20, 19, 18, 2, 0)]
    monkeypatch.setattr(policy, "max_positions", len(policy.encode(*prefixes[0])) + 7)
    options = dict(whole=whole, max_tokens=30)
    together = policy.propose(prefixes, 3, range(5, 10), **options)
    for i, prefix in enumerate(prefixes):
        assert policy.propose([prefix], 3, [5 + i], **options) == [
            [replace(c, logprob=pytest.approx(c.logprob, abs=1e-3)) for c in together[i]]
        ]
        room = policy.max_positions - len(policy.encode(*prefix))
        assert all(len(c.ids) <= room for c in together[i])
    longest = [max(len(c.ids) for c in cs) for cs in together]
    assert longest[0] == 7 < longest[4], "the room of the long prefix was that of all"


def tiny_gpt2(tokenizer, n_positions: int):
    """A random-weight model with a table of positions."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=n_positions,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=1,
        )
    )


def test_positions_never_pass_the_end_of_a_table_of_positions():
    tokenizer = train_tokenizer(["a b c"])
    torch.manual_seed(0)
    other = Policy(tiny_gpt2(tokenizer, n_positions=64), tokenizer, max_step_tokens=48)
    prefixes = [("b" * 48, []), ("a", [])]
    long, short = other.propose(prefixes, 2, [0, 1])
    assert max(len(c.ids) for c in long) <= 64 - len(other.encode(*prefixes[0])) <= 12
    assert [c.ids for c in short] == [c.ids for c in other.propose(prefixes[1:], 2, [1])[0]]
    assert max(len(c.ids) for c in short) > 12


def test_seeds_decide(policy):
    same = [policy.propose([(QUESTIONS[0], [])], 4, [s])[0] for s in (1, 1, 2)]
    assert [c.ids for c in same[0]] == [c.ids for c in same[1]] != [c.ids for c in same[2]]
    assert len({c.ids for c in same[0]}) > 1


def test_greedy_takes_the_most_likely_token(policy):
    (c,) = policy.propose([(QUESTIONS[0], [])], 1, [0], temperature=0)[0]
    prefix = policy.encode(QUESTIONS[0])
    with torch.inference_mode():
        for i, t in enumerate(c.ids):
            assert (
                policy.model(torch.tensor([prefix + list(c.ids[:i])])).logits[0, -1].argmax() == t
            )


def test_other_architectures_work_unchanged():
    tokenizer = train_tokenizer(["a b c"])
    llama = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            pad_token_id=0,
            eos_token_id=1,
        )
    )
    for model in (llama, tiny_gpt2(tokenizer, n_positions=128)):
        other = Policy(model, tokenizer, max_step_tokens=8)
        for q, cs in zip(
            ["1 + 1?", "a longer question, 2 + 2?"],
            other.propose([("1 + 1?", []), ("a longer question, 2 + 2?", [])], 2, [0, 1]),
        ):
            for c in cs:
                assert c.logprob == pytest.approx(
                    plain_logprob(other, other.encode(q), c.ids), abs=2e-3
                )


METASPACE = ["metaspace", "normalizer"]


def sentencepiece_like(kind, texts):
    """As SentencePiece makes them: a space is "▁", one stands before every text, BOS first."""
    tok = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    if kind == "metaspace":
        tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        tok.decoder = decoders.Metaspace(prepend_scheme="always")
    else:  # as Llama 2 and Mistral write it
        tok.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
        tok.decoder = decoders.Sequence(
            [
                decoders.Replace("▁", " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(" ", 1, 0),
            ]
        )
        tok.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n|▁"), "merged_with_next")
    special = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    tok.train_from_iterator(texts, trainer)
    tok.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tok,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<unk>",
    )


ADDITION = [
    dict(
        problem_id=str(a),
        question=f"What is {a} plus {b}?",
        steps=[f"x = {a}", f"y = {b}\nz = x + y", "answer = z"],
    )
    for a in (2, 3)
    for b in (4, 5)
]


@pytest.fixture(scope="module", params=METASPACE)
def spaced(request):
    """A policy on such a tokenizer, trained until it knows its few programs by heart."""
    texts = [plain_prompt(r["question"]) + STEP_END.join(r["steps"]) + STEP_END for r in ADDITION]
    tokenizer = sentencepiece_like(request.param, texts * 3)
    model = tiny_model(len(tokenizer))
    model.generation_config.eos_token_id = model.config.eos_token_id = tokenizer.eos_token_id
    policy = Policy(model, tokenizer)
    fine_tune(policy, ADDITION, 150, 4, muon_lr=0.02)
    return policy


def test_programs_of_a_sentencepiece_policy_are_valid_python(spaced):
    for row in ADDITION:
        (whole,) = spaced.propose([(row["question"], [])], 1, [0], temperature=0, whole=True)[0]
        assert whole.text == STEP_END.join(row["steps"])
        for i, step in enumerate(row["steps"]):
            prefix = (row["question"], row["steps"][:i])
            (c,) = spaced.propose([prefix], 1, [0], temperature=0)[0]
            assert c.text == step
            assert [*spaced.encode(*prefix), *c.ids] == spaced.encode(
                row["question"], row["steps"][: i + 1]
            )


def test_a_model_that_expects_a_beginning_token_gets_one_and_only_one(spaced, policy):
    ids, bos = spaced.encode("2 plus 4?", ["x = 2"]), spaced.tokenizer.bos_token_id
    assert ids[0] == bos and ids.count(bos) == 1
    assert ids[: len(spaced.encode("2 plus 4?"))] == spaced.encode("2 plus 4?")
    chat = Policy(spaced.model, spaced.tokenizer, prompt=lambda q: f"<s>{q}{STEP_END}")
    assert chat.encode("2 plus 4?").count(bos) == 1 and chat.encode("2 plus 4?")[0] == bos
    plain = policy.tokenizer(plain_prompt("2 plus 4?") + "x = 2" + STEP_END).input_ids
    assert policy.encode("2 plus 4?", ["x = 2"]) == plain


def test_steps_end_where_the_text_has_an_empty_line(spaced, policy):
    for tokenizer in (spaced.tokenizer, policy.tokenizer):
        codec = Codec(tokenizer)
        ends = StepEnds(codec, len(tokenizer))
        ids = codec.later("x = 1\ny = x\n\nanswer = y\n\n")
        written = [codec.decode([ids[: i + 1]])[0] for i in range(len(ids))]
        counts = [0, *(text.count(STEP_END) for text in written)]
        assert counts[-1] == 2
        before = torch.tensor([ids[0], *ids[:-1]])
        assert ends(before, torch.tensor(ids)).tolist() == [
            now > earlier for now, earlier in zip(counts[1:], counts, strict=False)
        ]


def test_draws_follow_the_probabilities():
    logits = torch.tensor([0.1, 0.2, 0.7]).log().expand(20_000, 3)
    ids, logp = pick_tokens(logits, torch.tensor(uniforms(3, 1, 20_000)[0]), 1.0)
    assert torch.allclose(ids.bincount() / 20_000, torch.tensor([0.1, 0.2, 0.7]), atol=0.02)
    assert torch.allclose(logp, logits.gather(1, ids[:, None])[:, 0], atol=1e-5)


def test_only_the_likeliest_tokens_are_drawn():
    logits, u = (
        torch.tensor([0.1, 0.5, 0.1, 0.3]).log().expand(20_000, 4),
        torch.tensor(uniforms(3, 1, 20_000)[0]),
    )
    ids, logp = pick_tokens(logits, u, 1.0, top_k=2)
    share = ids.bincount(minlength=4) / len(ids)
    assert torch.allclose(share, torch.tensor([0, 0.625, 0, 0.375]), atol=0.02)
    assert torch.allclose(
        logp[ids == 1], torch.tensor(0.5).log()
    )  # of the whole distribution: what the policy believes


def test_seeds_do_not_depend_on_order():
    assert derive_seed("a", 1) == derive_seed("a", 1) != derive_seed(1, "a")
    assert np.array_equal(uniforms(5, 2, 3), uniforms(5, 2, 3))
    assert not np.array_equal(uniforms(5, 2, 3), uniforms(6, 2, 3))
    batch = draws([5, 6], 2, [3, 4])
    assert np.array_equal(batch[0, :, :3], uniforms(5, 2, 3))
    assert np.array_equal(batch[1], uniforms(6, 2, 4))


def test_terminal_steps():
    assert is_terminal("# end\nanswer = 3") and is_terminal("answer=x")
    assert (
        not is_terminal("answer == 3")
        and not is_terminal("    answer = 3")
        and not is_terminal("my_answer = 3")
    )


@pytest.mark.parametrize(
    "step",
    [
        "answer, b = 5, 6",
        "b, answer = 5, 6",
        "(b, answer) = 5, 6",
        "[answer, b] = 5, 6",
        "b, *answer = 5, 6",
        "answer: int = 5",
        "answer : 'a = b' = 5",
        "(answer) = 5",
        "x = answer = 5",
        "x = y, answer = 5, 6",
        "a[0], answer = 5, 6",
        "a = 5; answer = a",
        "if ok: answer = a",
        "if kind == 'even': answer = a  # done",
        "if ok:\n    answer = a",
        "if ok:\n    x = 1\nelse:\n    answer = 2",
        "else:\n    answer = b",
        "elif x[1:2] == y: answer = b",
        "for x in numbers:\n    if x % 7 == 0:\n        answer = x\n        break",
        "while True:\n\tanswer = 3\n\tbreak",
        "try:\n    answer = f(x)\nexcept ValueError:\n    answer = 0",
        "with open_range() as r: answer = r",
        "match x:\n    case 1: answer = 3",
        "for answer in range(100):\n    if answer * answer > 50: break",
        "for i, answer in enumerate(found):\n    pass",
        "def f(x):\n    return x\nif f(1):\n    answer = f(2)",
        "    return x\nanswer = f(2)",
        "x = f(1,\n      2)\nif x: answer = x",
        "if ok:\n    x = 1\n\nif x:\n    answer = x",
    ],
)
def test_a_step_that_gives_answer_a_value_is_terminal(step):
    assert is_terminal(step)


@pytest.mark.parametrize(
    "step",
    [
        "# answer = 5",
        "x = 1  # answer = x",
        "print('answer = 5')",
        'if ok: print("so: answer = 5")',
        "f(answer=5)",
        "x = f(\n    answer=5,\n)",
        'x = """\n    answer, b = 5, 6\n"""',
        "total = f(x, answer=5)",
        "answer += 1",
        "answer[0] = 5",
        "answer.value = 5",
        "a[1:answer] = 5",
        "if answer == 5: x = 5",
        "if answer <= 5: x = 5",
        "if a[1:answer] != b: x = 5",
        "x = answer == 5",
        "answers, b = 5, 6",
        "the_answer: int = 5",
        "answer: int",
        "x = [answer for answer in found]",
        "f = lambda answer=5: answer",
        "def f(x):\n    answer = x\n    return answer",
        "def f(x, answer=5): return x",
        "def f(x):\n    for y in x:\n        if y:\n            answer = y\n    return answer",
        "class A:\n    answer = 5",
        "async def f():\n    answer = 5",
        "if ok:\n    def f():\n        answer = 5\n    x = f()",
        "    answer, b = 5, 6",
        "if ok:\n    x = 1\n\n    answer = x",
        "",
    ],
)
def test_a_step_that_only_names_answer_is_not_terminal(step):
    assert not is_terminal(step)


def test_looking_for_the_end_is_fast():
    """Whatever a policy writes, also without end."""
    for step in (
        "answer," * 20_000,
        "if " + "answer:" * 20_000,
        "(" * 20_000 + "answer",
        "x = " * 20_000 + "answer",
        "answer 'a" * 20_000,
        "if a" + " " * 20_000 + "answer",
        "a, " * 20_000 + "answer",
        "a." * 20_000 + "answer",
    ):
        start = time.perf_counter()
        is_terminal(step)
        assert time.perf_counter() - start < 1, step[:20]


def test_tokenizer_keeps_any_text(policy):
    for text in ("Zoë paid 3,999 € 日本", "a\n\n\n b", "007 \t x"):
        assert policy.tokenizer.decode(policy.tokenizer(text).input_ids) == text


def test_save_and_load(policy, tmp_path):
    policy.save(tmp_path)
    again = Policy.load(tmp_path, max_step_tokens=16, max_rows=40)
    assert [c.ids for c in again.propose([(QUESTIONS[0], [])], 2, [0])[0]] == [
        c.ids for c in policy.propose([(QUESTIONS[0], [])], 2, [0])[0]
    ]
    with pytest.raises(FileNotFoundError, match="no usable model"):
        Policy.load(tmp_path / "nothing")


def test_batches_cover_every_row_once_per_pass():
    lengths = list(np.random.default_rng(0).integers(5, 90, 101))
    batches = length_batches(lengths, 8, 13, seed=2)
    assert sorted(i for b in batches for i in b) == list(range(101))
    assert (
        batches == length_batches(lengths, 8, 13, seed=2) != length_batches(lengths, 8, 13, seed=3)
    )


@pytest.mark.parametrize("num_steps", [1, 5, 10, 50, 200, 1000])
def test_warm_up_follows_the_number_of_steps(num_steps, monkeypatch):
    rates, step = [], torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW,
        "step",
        lambda self: rates.append(self.param_groups[0]["lr"]) or step(self),
    )
    w = torch.nn.Parameter(torch.ones(1))
    train_loop([w], lambda step: w.sum(), num_steps, 0.1)
    assert len(rates) == num_steps and max(rates) > 0.085
    assert rates.index(max(rates)) <= 0.1 * num_steps
    if num_steps >= 200:
        assert rates[:20] == pytest.approx(
            [0.1 * (i + 1) / 20 * (1 - i / num_steps) for i in range(20)]
        )


def test_a_loss_that_is_not_a_number_stops_training():
    w = torch.nn.Parameter(torch.ones(1))
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        train_loop([w], lambda step: w.sum() * float("inf"), 3, 0.1)


def test_muon_gets_the_inner_matrices_and_only_those(policy):
    inner = inner_matrices(policy.model)
    outer = {
        id(policy.model.get_input_embeddings().weight),
        id(policy.model.get_output_embeddings().weight),
    }
    assert len(inner) == 7 * policy.model.config.num_hidden_layers and not outer & {
        id(w) for w in inner
    }
    a, b = torch.nn.Parameter(torch.eye(3)), torch.nn.Parameter(torch.eye(3))
    train_loop(
        [a, b],
        lambda step: a[0, 0] + 3 * a[1, 1] + b[0, 0] + 3 * b[1, 1],
        num_steps=1,
        lr=0.01,
        warmup=1,
        matrices=[a],
        muon_lr=0.01,
    )
    moved = (torch.eye(3) - a).detach()
    assert moved.abs().max() > 0.002 and not torch.allclose(
        moved, (torch.eye(3) - b).detach(), atol=1e-3
    )
