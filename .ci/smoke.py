"""Does the installed package work at all? Every module, the files of the widgets, one search.

    python .ci/smoke.py

CI runs it from outside the checkout, with the lowest and with the newest versions of what the
package depends on. It needs nothing but the package.
"""

import importlib
import pkgutil
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

import rstar_nb

CHECKOUT = Path(__file__).resolve().parent.parent
_STATIC = CHECKOUT / "rstar_nb" / "static"
STATIC = sorted(str(p.relative_to(_STATIC)) for p in _STATIC.rglob("*") if p.is_file())


def import_everything() -> int:
    """Import each module of the package; returns how many there are."""
    modules = list(pkgutil.walk_packages(rstar_nb.__path__, "rstar_nb."))
    for module in modules:
        importlib.import_module(module.name)
    return len(modules)


def check_static():
    """Each file that a widget reads was installed with the package."""
    for name in STATIC:
        assert (files("rstar_nb") / "static" / name).read_bytes(), name


def copy_course() -> tuple:
    """Lessons and labs copied out of the package; returns the number of each."""
    from rstar_nb.labs.course import copy_labs, copy_lessons

    with TemporaryDirectory() as folder:
        lessons, labs = copy_lessons(f"{folder}/lessons"), copy_labs(f"{folder}/labs")
        assert (Path(folder) / "lessons" / "nbs" / "index.ipynb").is_file()
        copy_labs(f"{folder}/teacher", teacher=True)
    return lessons, labs


class WorkedExamples:
    """A policy without a model: it proposes the next step of the generator's own program."""

    def __init__(self, problems, gold_program):
        self.programs = {p.question: gold_program(p.id) for p in problems}

    def propose(self, prefixes, k, seeds, temperature=1.0, top_k=0, whole=False):
        from rstar_nb.policy.steps import Candidate

        steps = [self.programs[question][len(before)] for question, before in prefixes]
        return [[Candidate(step, -1.0, (1,), True)] * k for step in steps]


def propose_once(problems, gold_program) -> int:
    """Steps that an untrained model writes for each problem; returns how many answers came."""
    from rstar_nb.policy.policy import Policy
    from rstar_nb.policy.tiny import tiny_model, train_tokenizer

    texts = [p.question + "\n" + "\n\n".join(gold_program(p.id)) for p in problems]
    tokenizer = train_tokenizer(texts, vocab_size=1400)
    policy = Policy(tiny_model(len(tokenizer)), tokenizer)
    return len(policy.propose([(p.question, []) for p in problems], 2, [0] * len(problems)))


def search_once() -> int:
    """A tree for one problem, each of its steps executed; returns its number of nodes."""
    from rstar_nb.executor.pool import Executor
    from rstar_nb.problems.generator import generate, gold_program
    from rstar_nb.search.agent import Agent, SearchOptions
    from rstar_nb.search.mcts import search
    from rstar_nb.search.tree import Tree, check_invariants, trajectories

    problems = generate(4, "train", seed=0)
    assert propose_once(problems, gold_program) == len(problems)
    problem = problems[0]
    tree = Tree(problem.id, problem.question)
    with Executor(workers=1, preload=()) as executor:
        agent = Agent(WorkedExamples(problems, gold_program), executor)
        options = SearchOptions(rollouts=2, candidates=2)
        search([tree], agent, options, references={problem.id: problem.answer})
    check_invariants(tree)
    assert any(t["correct"] for t in trajectories(tree)), "the right program was not found"
    return len(tree.nodes)


if __name__ == "__main__":
    here = Path(rstar_nb.__file__).resolve()
    assert CHECKOUT not in here.parents, f"{here} is the checkout, not an installed package"
    print(import_everything(), "modules imported")
    check_static()
    print(len(STATIC), "files of the widgets")
    print("{} notebooks and {} labs come with it".format(*copy_course()))
    print("a search tree of", search_once(), "nodes")
    names = ("torch", "transformers", "peft", "numpy", "anywidget", "typer")
    print(", ".join(f"{name} {version(name)}" for name in names))
