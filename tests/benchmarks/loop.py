"""Where the time of a run goes, and what the tree engine costs by itself.

    python tests/benchmarks/loop.py RUN            # a finished run folder, e.g. runs/default

Prints the seconds per phase of the run, then grows trees for problems, and does what a round does
with a wave of problems, with the run's last policy and PPM, and prints tokens/s, rollouts/s and the
shares of the time inside the models' forward passes and in the executor; then it drives the tree
with a policy and an executor that answer at once. One JSON object is the last line; --record FILE
keeps it.
"""

import argparse
import json
import statistics
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from rstar_nb.evolve.loop import executor_for, load_settings
from rstar_nb.evolve.run import Run
from rstar_nb.evolve.searching import grow_trees, search_options
from rstar_nb.evolve.tiny import TinyModels
from rstar_nb.measure.runs import load_round
from rstar_nb.policy.steps import Candidate
from rstar_nb.problems.generator import generate
from rstar_nb.search.agent import Agent, SearchOptions
from rstar_nb.search.mcts import search
from rstar_nb.search.tree import Tree
from rstar_nb.store import machine, read_lines, write_text


@contextmanager
def forward_clock(*models):
    """Seconds inside the models' forward passes, as a list of one number."""
    spent, began, hooks = [0.0], {}, []
    for model in models:
        hooks.append(
            model.register_forward_pre_hook(
                lambda m, *_: began.__setitem__(id(m), time.perf_counter())
            )
        )
        hooks.append(
            model.register_forward_hook(
                lambda m, *_: spent.__setitem__(
                    0, spent[0] + time.perf_counter() - began.pop(id(m))
                )
            )
        )
    try:
        yield spent
    finally:
        for hook in hooks:
            hook.remove()


def measured(run, search_problems):
    """Seconds, shares and speeds of a search with the run's last models.

    `search_problems(agent, settings, k)` returns trees.
    """
    settings = load_settings(run)
    last = max(m["round"] for m in read_lines(run / "metrics.jsonl"))
    k, policy, ppm = load_round(run, last)
    # The policy calls the whole model, or its transformer and head when a program is read again;
    # so does the PPM.
    models = [policy.model]
    if ppm:
        models.append(ppm.policy.model)
    parts = [part for m in models for part in (m.get_decoder(), m.get_output_embeddings())]
    with executor_for(settings) as executor, forward_clock(*parts) as inside:
        timed = Timed(executor)
        start = time.perf_counter()
        trees = search_problems(Agent(policy, timed, ppm), settings, k)
        seconds = time.perf_counter() - start
    return dict(
        problems=len(trees),
        seconds=round(seconds, 2),
        share_in_models=round(inside[0] / seconds, 3),
        share_in_executor=round(timed.seconds / seconds, 3),
        tokens_per_second=round(policy.generated_tokens / seconds),
        rollouts_per_second=round(sum(t.rollouts for t in trees) / seconds, 1),
        nodes_per_second=round(sum(len(t.nodes) for t in trees) / seconds),
    )


def grown(agent, settings, k):
    """A tree for each of 200 problems."""
    problems = generate(200, "train", seed=987, kind=settings.problems.kind)
    options = search_options(settings, k)
    return search(
        [Tree(p.id, p.question) for p in problems],
        agent,
        options,
        references={p.id: p.answer for p in problems},
    )


def wave(agent, settings, k):
    """What a round does with one wave of problems."""
    kind = settings.problems.kind
    problems = generate(settings.search.wave, "train", seed=987, kind=kind)
    run = Run("nowhere", settings, agent.executor, TinyModels(), quiet=True)
    return grow_trees(run, k, problems, agent)


class Timed:
    """An executor that counts the seconds spent waiting for it."""

    def __init__(self, executor):
        self.executor, self.seconds = executor, 0.0

    def run(self, programs):
        start = time.perf_counter()
        try:
            return self.executor.run(programs)
        finally:
            self.seconds += time.perf_counter() - start


class InstantPolicy:
    """Proposes steps with different texts at once; they are made before the clock runs."""

    def __init__(self, k):
        self.steps = [Candidate(f"x{j} = {j}", -1.0 - j, (), True) for j in range(k)]

    def propose(self, prefixes, k, seeds, temperature=1.0, top_k=0, whole=False):
        return [self.steps[:k] for _ in prefixes]


class InstantExecutor:
    class _Ok:
        status = "ok"
        answer = None
        error = None

    def run(self, programs):
        return [self._Ok] * len(programs)


class Enough(Exception):
    """The tree has as many nodes as were asked for."""


def engine_speed(nodes, candidates=5, depth=16, seconds=2):
    """Tree nodes per second, with nothing behind the tree.

    The median of one tree after another for a while.
    """

    def stop(tree):
        if len(tree.nodes) >= nodes:
            raise Enough

    agent = Agent(InstantPolicy(candidates), InstantExecutor())
    options = SearchOptions(rollouts=nodes, candidates=candidates, max_depth=depth)
    speeds = []
    start = time.perf_counter()
    while not speeds or time.perf_counter() - start < seconds:
        tree = Tree("engine", "nothing")
        began = time.perf_counter()
        try:
            search([tree], agent, options, on_rollout=stop)
        except Enough:
            pass
        speeds.append(len(tree.nodes) / (time.perf_counter() - began))
    return round(statistics.median(speeds))


def main(run, keep=None):
    phases = {}
    for m in read_lines(run / "metrics.jsonl"):
        for phase, seconds in m["seconds"].items():
            phases[phase] = round(phases.get(phase, 0) + seconds, 2)
    total = sum(phases.values())
    for phase, seconds in sorted(phases.items(), key=lambda x: -x[1]):
        print(f"{phase:<10} {seconds:8.1f} s  {100 * seconds / total:5.1f} %")
    result = dict(
        phases=phases,
        trees=measured(run, grown),
        wave=measured(run, wave),
        engine={str(n): engine_speed(n) for n in (100, 10_000, 100_000)},
        seed=load_settings(run).seed,
        machine=machine(),
    )
    if keep:
        write_text(keep, json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a finished run folder, e.g. runs/default")
    parser.add_argument("--record", type=Path, help="file for the result")
    args = parser.parse_args()
    if not (args.run / "metrics.jsonl").exists():
        sys.exit(
            f"{args.run}: no metrics.jsonl there; give a finished run folder, e.g. runs/default"
        )
    main(args.run, args.record)
