"""What is learnt from trees: pairs and their loss, selected solutions and theirs."""

import copy
import math

import pytest
import torch

from rstar_nb.policy.policy import Policy
from rstar_nb.policy.steps import STEP_END, plain_prompt
from rstar_nb.policy.tiny import tiny_model, train_tokenizer
from rstar_nb.problems.generator import generate, gold_program
from rstar_nb.reward.heads import READS
from rstar_nb.reward.model import RewardModel
from rstar_nb.reward.pairs import (
    fit_pairs,
    held_out,
    pair_accuracy,
    pairwise_loss,
    preference_pairs,
)
from rstar_nb.reward.values import fit_values, outcome_targets, q_targets
from rstar_nb.search.tree import Node, Tree
from rstar_nb.training.loop import length_batches
from rstar_nb.training.sft import (
    code_only,
    encode_row,
    fine_tune,
    num_steps_for,
    select_solutions,
    solution_loss,
)

ROWS = [dict(problem_id=p.id, question=p.question, steps=gold_program(p.id)) for p in generate(48)]


@pytest.fixture
def policy():
    tokenizer = train_tokenizer(
        [plain_prompt(r["question"]) + STEP_END.join(r["steps"]) for r in ROWS]
    )
    return Policy(tiny_model(len(tokenizer)), tokenizer)


def fork():
    """Root with five children: Q 1, 0.5, 0 (mixed), -0.5, -1; each ends in a terminal child."""
    nodes = [Node(0, -1, children=[1, 2, 3, 4, 5], node_visits=20)]
    for i, value in enumerate([4, 2, 0, -2, -4], 1):
        nodes.append(Node(i, 0, f"x = {i}", children=[i + 5], node_visits=4, value_sum=value))
    for i, right in enumerate([True, True, True, False, False], 6):
        nodes.append(
            Node(
                i,
                i - 5,
                f"answer = x + {i}",
                node_visits=4,
                value_sum=4 if right else -4,
                correct=right,
                answer=i,
            )
        )
    return Tree("fork", "?", nodes)


def test_step_pairs_take_the_two_best_right_and_the_two_worst_wrong():
    pairs = [
        (p["better"][-1], p["worse"][-1]) for p in preference_pairs(fork()) if p["kind"] == "step"
    ]
    assert sorted(pairs) == [
        ("x = 1", "x = 4"),
        ("x = 1", "x = 5"),
        ("x = 2", "x = 4"),
        ("x = 2", "x = 5"),
    ]


def test_final_pairs_compare_whole_trajectories_by_average_q():
    pairs = [
        (tuple(p["better"]), tuple(p["worse"]))
        for p in preference_pairs(fork())
        if p["kind"] == "final"
    ]
    assert len(pairs) == 4
    assert {b for b, _ in pairs} == {("x = 1", "answer = x + 6"), ("x = 2", "answer = x + 7")}
    assert {w for _, w in pairs} == {("x = 4", "answer = x + 9"), ("x = 5", "answer = x + 10")}


def test_no_pairs_without_both_outcomes():
    t = fork()
    for n in t.nodes[6:]:
        n.correct = True
    assert preference_pairs(t) == [] == preference_pairs(Tree("empty", "?"))


def test_what_the_reward_model_said_is_no_part_of_what_one_learns_from():
    opinion = fork()
    for n, ppm in zip(opinion.nodes[1:], [-1, 1, -1, 1, -1, -1, 1, 1, -1, 1], strict=True):
        n.ppm = float(ppm)
    assert preference_pairs(opinion) == preference_pairs(fork())
    assert q_targets(opinion) == q_targets(fork())
    assert {r["target"] for r in q_targets(opinion)} == {1.0, 0.5, 0.0, -0.5, -1.0}
    without_score = [dict(r, ppm=None) for r in select_solutions([opinion])]
    assert without_score == select_solutions([fork()])


def test_a_q_regression_learns_what_it_was_shown(policy):
    rows = q_targets(fork())[:5]
    assert [r["target"] for r in rows] == [1, 0.5, 0, -0.5, -1]
    pqm = RewardModel(policy)
    losses = fit_values(pqm, rows, 60, batch_size=5, lr=2e-3)
    assert losses[-1] < 0.1 * losses[0]
    assert {r["target"] for r in outcome_targets(fork())} == {1.0, -1.0}


def test_pairwise_loss_by_hand():
    better, worse = [0.9, 0.3], [-0.5, 0.1]  # the paper's two positives and two negatives
    by_hand = -sum(math.log(1 / (1 + math.exp(w - b))) for b in better for w in worse) / 4
    ours = pairwise_loss(torch.tensor([b for b in better for _ in worse]), torch.tensor(worse * 2))
    assert ours.item() == pytest.approx(by_hand, abs=1e-6)
    assert pairwise_loss(torch.zeros(3), torch.zeros(3)).item() == pytest.approx(math.log(2))


def test_ppm_starts_without_opinion_and_learns(policy):
    ppm = RewardModel(policy)
    before = {name: w.clone() for name, w in policy.model.state_dict().items()}
    prefixes = [(r["question"], r["steps"]) for r in ROWS[:5]]
    assert ppm.score(prefixes) == [0.0] * 5
    pairs = [
        dict(
            problem_id=r["problem_id"],
            question=r["question"],
            better=r["steps"],
            worse=["answer = 1"],
            kind="final",
        )
        for r in ROWS
    ]
    fit_pairs(ppm, pairs, num_steps=30, batch_size=8)
    right, n = pair_accuracy(ppm, pairs)["final"]
    assert right / n > 0.9
    assert all(-1 <= s <= 1 for s in ppm.score(prefixes))
    assert all(torch.equal(w, before[name]) for name, w in policy.model.state_dict().items()), (
        "the policy's own weights must stay as they were"
    )
    assert not torch.equal(ppm.policy.model.lm_head.weight, before["lm_head.weight"])


def test_scores_do_not_depend_on_the_batch(policy):
    ppm = RewardModel(policy)
    torch.nn.init.normal_(ppm.head.weight)
    prefixes = [(r["question"], r["steps"]) for r in ROWS[:7]]
    assert ppm.score(prefixes) == pytest.approx([ppm.score([p])[0] for p in prefixes], abs=1e-4)


@pytest.mark.parametrize("reads", READS)
def test_sharing_a_prefix_changes_no_score(policy, reads):
    ppm = RewardModel(policy, reads=READS[reads])
    torch.nn.init.normal_(ppm.head.weight, std=0.1)
    questions = [p.question for p in generate(3)]
    prefixes = [
        (q, ["a = 1", step])
        for q in questions
        for step in ("b = 2", "answer = a + 3", "x = 1\ny = 2")
    ] + [(questions[0], ["a = 1"]), (questions[1], [])]
    with torch.inference_mode():
        alone = [ppm.scores([ppm.encode(*p)]).item() for p in prefixes]
    assert len(set(alone)) > 5
    assert ppm.score(prefixes) == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize("reads", READS)
def test_scores_along_a_program_are_those_of_its_beginnings(policy, reads):
    ppm = RewardModel(policy, reads=READS[reads])
    torch.nn.init.normal_(ppm.head.weight, std=0.1)
    if reads == "likelihood":
        # A policy that knows nothing finds a program so unlikely that every score would be -1.
        torch.nn.init.constant_(ppm.head.alpha, 1e-3)
    # Programs of one to six steps, of which all or only the last few are asked for.
    programs = [
        (r["question"], r["steps"], n)
        for r in ROWS[:14]
        for n in {1, len(r["steps"]), max(1, len(r["steps"]) - 1)}
    ]
    assert {len(steps) for _, steps, _ in programs} == {1, 2, 3, 4, 5, 6}
    by_score = [
        ppm.score([(q, steps[:i]) for i in range(len(steps) - n + 1, len(steps) + 1)])
        for q, steps, n in programs
    ]
    assert len({round(s, 6) for scores in by_score for s in scores}) > len(ROWS[:14])
    for batch_size in (64, 5, 1):
        along = ppm.score_steps(programs, batch_size)
        assert [len(scores) for scores in along] == [n for *_, n in programs]
        for scores, expected in zip(along, by_score, strict=True):
            assert scores == pytest.approx(expected, abs=1e-4)
    assert ppm.score_steps([]) == []


def test_a_likelihood_ppm_prefers_what_the_policy_finds_likely(policy):
    question, (first, *_) = generate(1)[0].question, gold_program(generate(1)[0].id)
    fine_tune(policy, [dict(question=question, steps=[first])] * 8, num_steps=12, batch_size=8)
    likely, unlikely = RewardModel(policy, reads=READS["likelihood"]).score(
        [(question, [first]), (question, ["zebra = 7"])]
    )
    assert likely > unlikely


@pytest.mark.parametrize("reads", READS)
def test_ppm_save_and_load(policy, tmp_path, reads):
    ppm = RewardModel(policy, reads=READS[reads])
    torch.nn.init.normal_(ppm.head.weight)
    ppm.save(tmp_path / "ppm")
    policy.save(tmp_path / "policy")
    prefixes = [(r["question"], r["steps"]) for r in ROWS[:3]]
    assert RewardModel.load(tmp_path / "ppm").score(prefixes) == pytest.approx(
        ppm.score(prefixes), abs=1e-5
    )
    with pytest.raises(FileNotFoundError, match="not a reward model"):
        RewardModel.load(tmp_path / "policy")


def test_held_out_is_a_tenth():
    assert 0.05 < sum(held_out(p.id) for p in generate(600)) / 600 < 0.15


def test_selection_takes_the_top_two_by_average_q():
    rows = select_solutions([fork()])
    assert [r["steps"][0] for r in rows] == ["x = 1", "x = 2"]
    assert rows[0]["average_q"] == 1.0 and rows[1]["average_q"] == 0.75


def test_selection_counts_equal_code_once_and_heeds_the_ppm():
    t = fork()
    t.nodes[2].step = "# the same with a comment\nx =  1"
    t.nodes[7].step = "answer = x + 6"
    assert [r["steps"][0] for r in select_solutions([t])] == ["x = 1", "x = 3"]
    for n in t.nodes:
        n.ppm = 0.9 if n.id in (3, 8) else -0.9
    assert [r["steps"][0] for r in select_solutions([t], min_ppm=0.0)] == ["x = 3"]
    assert code_only(["# a\nx =  1\n"]) == "x = 1"


class Likes:
    """A PPM that gives a program whose first step is `step` the score, and others its opposite."""

    def __init__(self, step, score):
        self.step, self.score_of_it = step, score
        self.read = []

    def score(self, prefixes):
        self.read += prefixes
        return [self.score_of_it * (1 if steps[0] == self.step else -1) for _, steps in prefixes]


def test_outcome_and_ppm_choose_together():
    """Averages are 1.0 for x = 1 and 0.75 for x = 2: a firm opinion turns them round."""
    mild, firm = Likes("x = 2", 0.1), Likes("x = 2", 0.4)
    assert [r["steps"][0] for r in select_solutions([fork()], 1, ppm=mild)] == ["x = 1"]
    (row,) = select_solutions([fork()], 1, ppm=firm)
    assert row["steps"][0] == "x = 2" and row["ppm"] == pytest.approx(0.4)
    assert row["average_q"] == 0.75


def test_a_ppm_reads_every_beginning_of_the_right_programs_only():
    ppm = Likes("x = 2", 0.4)
    rows = select_solutions([fork()], 9, ppm=ppm)
    wanted = [(fork().question, r["steps"][: i + 1]) for r in rows for i in range(len(r["steps"]))]
    assert sorted(map(str, ppm.read)) == sorted(map(str, wanted))


def test_a_solution_nobody_scored_cannot_fail_a_condition_on_scores():
    t = fork()
    t.nodes[6].ppm = -0.9
    assert [r["steps"][0] for r in select_solutions([t], min_ppm=0.5)] == ["x = 2", "x = 3"]


def test_solution_loss_equals_the_masked_loss_of_transformers(policy):
    encoded = [encode_row(policy, r) for r in ROWS[:6]]
    width = max(len(ids) for ids, _ in encoded)
    ids = torch.tensor([i + [0] * (width - len(i)) for i, _ in encoded])
    labels = torch.tensor([[-100] * q + i[q:] + [-100] * (width - len(i)) for i, q in encoded])
    ours, n = solution_loss(policy.model, encoded)
    assert ours.item() == pytest.approx(policy.model(ids, labels=labels).loss.item(), abs=1e-4)
    assert n == int((labels != -100).sum())


def test_the_tokens_of_the_question_are_no_targets(policy):
    ids, n_question = encode_row(policy, ROWS[0])
    _, n = solution_loss(policy.model, [(ids, n_question)])
    assert n == len(ids) - n_question
    policy.model.lm_head.weight = torch.nn.Parameter(policy.model.lm_head.weight.detach().clone())
    loss, _ = solution_loss(policy.model, [(ids, n_question)])
    loss.backward()
    logp = policy.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    by_hand = -sum(logp[i - 1, ids[i]] for i in range(n_question, len(ids))) / n
    (expected,) = torch.autograd.grad(by_hand, [policy.model.lm_head.weight])
    assert torch.allclose(policy.model.lm_head.weight.grad, expected, atol=1e-5)


def test_fine_tune_is_repeatable_and_refuses_nothing_to_learn(policy):
    twin, other = (Policy(copy.deepcopy(policy.model), policy.tokenizer) for _ in range(2))
    losses = fine_tune(policy, ROWS, 4, 8, seed=1)
    assert losses == fine_tune(twin, ROWS, 4, 8, seed=1) != fine_tune(other, ROWS, 4, 8, seed=2)
    with pytest.raises(ValueError, match="no solution was selected"):
        fine_tune(policy, [], 4)


def test_lora_trains_only_the_adapter(policy):
    from peft import LoraConfig

    before = policy.model.model.layers[0].mlp.up_proj.weight.clone()
    fine_tune(policy, ROWS, 3, 8, peft_config=LoraConfig(r=4, target_modules="all-linear"))
    assert torch.equal(
        policy.model.get_base_model().model.layers[0].mlp.up_proj.base_layer.weight, before
    )
    assert any(p.abs().sum() > 0 for n, p in policy.model.named_parameters() if "lora_B" in n)


def test_steps_grow_with_the_rows():
    assert num_steps_for(100, 4) == 300 < num_steps_for(6000, 4) == 1500


def test_no_rows_are_refused_at_once():
    """Without rows no batch is ever full: it must not look for one for ever."""
    with pytest.raises(ValueError, match="no rows to train on"):
        length_batches([], 4, 3, seed=0)
