"""A policy without a model: it proposes the gold step, spoiled now and then.

The same seeds give the same steps.
"""

import random

from rstar_nb.executor.pool import Executor
from rstar_nb.policy.steps import Candidate
from rstar_nb.problems.generator import generate, gold_program
from rstar_nb.search.agent import Agent, SearchOptions
from rstar_nb.search.mcts import search
from rstar_nb.search.tree import Tree
from rstar_nb.search.ucb import puct


class StandIn:
    def __init__(self, problems, spoil=0.5):
        self.gold, self.spoil = {p.question: gold_program(p.id) for p in problems}, spoil

    def propose(self, prefixes, k, seeds, temperature=1.0, top_k=0, whole=False):
        return [
            [self._one(q, steps, random.Random(f"{s}{j}"), whole) for j in range(k)]
            for (q, steps), s in zip(prefixes, seeds)
        ]

    def _one(self, question, steps, rng, whole):
        gold = self.gold[question]

        def spoil(step):
            if rng.random() >= self.spoil:
                return step
            if rng.random() < 0.3:
                return step.replace("= ", "= missing + ", 1)
            return step.replace(str(rng.randrange(1, 10)), str(rng.randrange(1, 10)))

        text = (
            "\n\n".join(map(spoil, gold)) if whole else spoil(gold[min(len(steps), len(gold) - 1)])
        )
        return Candidate(text, -round(rng.random(), 3), tuple(range(len(text.split()))), True)


class StandInPPM:
    """A score in [-1, 1] that follows from the text."""

    def score(self, prefixes):
        return [(sum(map(ord, "".join(steps))) % 201 - 100) / 100 for _, steps in prefixes]


def grow_trees(n=12, ppm=None, **options):
    problems = generate(n, "test", seed=5)
    with Executor(workers=2, preload=()) as executor:
        return search(
            [Tree(p.id, p.question) for p in problems],
            Agent(StandIn(problems), executor, ppm),
            SearchOptions(**options),
            references={p.id: p.answer for p in problems},
        )


def golden_trees():
    """Twelve trees by UCT without a PPM and four by PUCT with one."""
    return grow_trees() + grow_trees(4, ppm=StandInPPM(), rule=puct)
