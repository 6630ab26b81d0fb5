import pytest
import torch

from rstar_nb.policy.policy import Policy
from rstar_nb.policy.steps import STEP_END
from rstar_nb.policy.tiny import tiny_model, train_tokenizer
from rstar_nb.problems.generator import generate, gold_program
from rstar_nb.search.discrepancies import Change, one_changed, runner_ups


@pytest.fixture(scope="module")
def policy():
    tokenizer = train_tokenizer(
        [p.question + STEP_END + STEP_END.join(gold_program(p.id)) for p in generate(60)]
    )
    return Policy(tiny_model(len(tokenizer), seed=3), tokenizer, max_step_tokens=4)


@pytest.fixture(scope="module")
def programs():
    return [(p.question, gold_program(p.id)) for p in generate(12, "test", levels=[1, 2, 3])]


def logprobs(policy, question, ids):
    start = len(policy.encode(question))
    whole = torch.tensor([policy.encode(question) + list(ids)])
    with torch.no_grad():
        return policy.model(whole).logits.log_softmax(-1)[0, start - 1 : -1]


def test_costs_are_differences_of_log_probabilities(policy, programs):
    for (question, steps), changes in zip(programs, runner_ups(policy, programs, 5)):
        taken = policy.encode(question, steps)[len(policy.encode(question)) :]
        logp = logprobs(policy, question, taken)
        costs = [cost for cost, *_ in changes]
        assert costs == sorted(costs) and len(changes) == 5
        for cost, logprob, ids in changes:
            at = len(ids) - 1
            assert ids[:-1] == taken[:at] and ids[-1] != taken[at]
            assert cost == pytest.approx(float(logp[at, taken[at]] - logp[at, ids[-1]]), abs=1e-4)
            assert logprob == pytest.approx(
                float(sum(logp[j, token] for j, token in enumerate(ids))), abs=1e-3
            )


def test_no_cheaper_change_is_left_out(policy, programs):
    question, steps = programs[0]
    taken = policy.encode(question, steps)[len(policy.encode(question)) :]
    logp = logprobs(policy, question, taken)

    def best_two(row, token):
        values, tokens = (x.tolist() for x in row.topk(3))
        return [v for v, t in zip(values, tokens, strict=True) if t != token][:2]

    every = sorted(
        float(row[token]) - v for row, token in zip(logp, taken) for v in best_two(row, token)
    )
    assert [cost for cost, *_ in runner_ups(policy, programs[:1], 5)[0]] == pytest.approx(
        every[:5], abs=1e-4
    )


def test_a_changed_program_is_greedy_before_and_after_its_change(policy, programs):
    greedy = [
        c
        for (c,) in policy.propose(
            [(q, []) for q, _ in programs],
            1,
            [0] * len(programs),
            temperature=0,
            whole=True,
            max_tokens=24,
        )
    ]
    read = [
        (q, policy.tokenizer.decode(c.ids).split(STEP_END)) for (q, _), c in zip(programs, greedy)
    ]
    policy.generated_tokens = 0
    changed = one_changed(policy, read, 3)
    assert [len(candidates) for candidates in changed] == [3] * len(programs)
    for (question, steps), candidates in zip(read, changed, strict=True):
        taken = policy.encode(question, steps)[len(policy.encode(question)) :]
        for c in candidates:
            logp = logprobs(policy, question, c.ids)
            assert list(c.ids[: c.begun]) == taken[: c.begun] and c.ids[c.begun] != taken[c.begun]
            assert logp.argmax(-1)[c.begun + 1 :].tolist() == list(c.ids[c.begun + 1 :])
            assert c.logprob == pytest.approx(
                float(sum(row[token] for row, token in zip(logp, c.ids))), abs=1e-2
            )
    assert policy.generated_tokens == sum(
        len(c.ids) - c.begun - 1 for candidates in changed for c in candidates
    )


def test_a_change_that_ends_the_program_ends_it(policy, monkeypatch):
    question = "How many?"
    ids = policy.encode(question, ["answer = 3"])[len(policy.encode(question)) :]
    assert policy.tokenizer.decode(ids[-1:]) == STEP_END
    monkeypatch.setattr(
        "rstar_nb.search.discrepancies.runner_ups", lambda *a, **k: [[Change(0.5, -1.0, ids)]]
    )
    ((candidate,),) = one_changed(policy, [(question, ["answer = 3 + 4"])], 1)
    assert (candidate.text, candidate.ids, candidate.logprob, candidate.finished) == (
        "answer = 3",
        tuple(ids),
        -1.0,
        True,
    )


def test_an_empty_program_has_nothing_to_change(policy, programs):
    assert runner_ups(policy, [("How many?", []), programs[0]], 2)[0] == []
    assert [
        len(candidates) for candidates in one_changed(policy, [("How many?", []), programs[0]], 2)
    ] == [
        0,
        2,
    ]
