"""Several processes write what one would have written."""

import os
import signal
import subprocess
import sys

import pytest
import torch

from rstar_nb.evolve.base import shipped_base
from rstar_nb.policy.parallel import ParallelPolicy, WorkerLost, one_thread, workers
from rstar_nb.problems.generator import generate

PROBLEMS = 40
CALL = dict(k=1, seeds=range(PROBLEMS), temperature=0, whole=True, max_tokens=40, runners_up=2)
SAMPLED = dict(CALL, k=3, temperature=1.0)


@pytest.fixture(scope="module")
def policy():
    policy = shipped_base()
    policy.max_rows = 9  # several batches, the last of them small
    return policy


@pytest.fixture(scope="module")
def prefixes():
    return [(p.question, []) for p in generate(PROBLEMS, kind="mix")]


@pytest.mark.parametrize("call", [CALL, SAMPLED])
@pytest.mark.parametrize("number", [1, 2])
def test_the_candidates_are_those_of_one_process(policy, prefixes, call, number):
    before = policy.generated_tokens, policy.prefix_tokens
    with one_thread():
        alone = policy.propose(prefixes, **call)
    counts = policy.generated_tokens - before[0], policy.prefix_tokens - before[1]
    threads = torch.get_num_threads()
    with workers(number) as team:
        both = ParallelPolicy(policy, team)
        begin = both.generated_tokens, both.prefix_tokens
        assert both.propose(prefixes, **call) == alone
        assert (both.generated_tokens - begin[0], both.prefix_tokens - begin[1]) == counts
        few = [dict(call, seeds=range(2)), prefixes[:2]]
        with one_thread():
            assert both.propose(few[1], **few[0]) == policy.propose(few[1], **few[0])
        assert both.propose([], **dict(call, seeds=[])) == []
    assert torch.get_num_threads() == threads


def test_a_worker_takes_its_share(policy, prefixes):
    with workers(1) as team:
        both = ParallelPolicy(policy, team)
        here = []
        decode_here = both._decode_here
        both._decode_here = lambda batches, which, written: (
            here.extend(which),
            decode_here(batches, which, written),
        )
        both.propose(prefixes, **CALL)
    assert here == [0, 2, 4]


def test_two_policies_take_turns_with_a_team(policy, prefixes):
    other = shipped_base()
    other.max_rows = policy.max_rows
    with torch.no_grad():
        for weights in other.model.parameters():
            weights.mul_(0.9)
    with one_thread():
        alone = [p.propose(prefixes, **CALL) for p in (policy, other)]
    assert alone[0] != alone[1]
    with workers(1) as team:
        both = [ParallelPolicy(p, team) for p in (policy, other)]
        assert [both[i].propose(prefixes, **CALL) for i in (0, 1, 0)] == [*alone, alone[0]]


@pytest.mark.parametrize("when", ["before the weights", "before the batches", "at work"])
def test_a_worker_that_is_lost_costs_no_candidates(policy, prefixes, when):
    with one_thread():
        alone = policy.propose(prefixes, **CALL)
    with workers(2) as team, pytest.warns(UserWarning, match="has ended"):
        lost = team[0]

        def kill():
            lost.process.kill()
            lost.process.wait()

        if when == "before the weights":
            kill()
        both = ParallelPolicy(policy, team)
        if when == "before the batches":
            kill()
        if when == "at work":  # it has weights and batches, and does nothing any more
            assert both.propose(prefixes, **CALL) == alone
            hand_out = both._hand_out
            both._hand_out = lambda batches: (
                os.kill(lost.process.pid, signal.SIGSTOP),
                hand_out(batches),
                kill(),
            )[1]
        assert both.propose(prefixes, **CALL) == alone
        assert lost not in team and len(team) == 1
        both._hand_out = ParallelPolicy._hand_out.__get__(both)
        assert both.propose(prefixes, **CALL) == alone


def test_what_fails_in_a_worker_fails_here(policy, prefixes):
    with workers(1) as team:
        both = ParallelPolicy(policy, team)
        both.propose(prefixes, **CALL)
        batch = [policy.encode(prefixes[0][0])], 1, [0], 0, 0, True, 4, [[10**9]], 0
        with pytest.raises(IndexError):
            team[0].send("batches", [batch])
            team[0].receive()
        with one_thread():
            assert both.propose(prefixes, **CALL) == policy.propose(prefixes, **CALL)


def test_a_closed_worker_says_so(policy):
    with workers(1) as team:
        (worker,) = team
    assert worker.process.poll() is not None
    with pytest.raises((WorkerLost, ValueError)):
        worker.send("batches", [])


def test_no_worker_outlives_its_host():
    host = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os\n"
            "from rstar_nb.policy.parallel import Worker\n"
            "print(Worker().process.pid, flush=True)\n"
            "os._exit(0)",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    pid = int(host.stdout)
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    import select

    assert select.select([descriptor], [], [], 60)[0], "it still waits for messages"
