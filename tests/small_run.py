"""A small run in a process of its own, which may be told to kill itself:

    python small_run.py FOLDER [PLACE N]

PLACE is a place in the loop; at its N-th passage the process gets SIGKILL.
"""

import os
import signal
import sys

import rstar_nb.store as store
from rstar_nb.evolve.loop import evolve
from rstar_nb.evolve.settings import Settings
from rstar_nb.evolve.tiny import TinyModels

# Only levels 1 and 2, of which the base that comes with the package solves some and fails some.
# It needs no training, and has seen problems of both kinds.
SETTINGS = Settings().with_values(
    {
        "rounds": 2,
        "base.source": "shipped",
        "problems.kind": "mix",
        "problems.number": (24,),
        "problems.min_level": (1,),
        "problems.max_level": (2,),
        "problems.carry": 6,
        "machine.processes": 1,
        "search.wave": 12,
        "search.rollouts": (5,),
        "search.solved_rollouts": (3,),
        "search.candidates": (3,),
        "search.ppm_from": 2,
        "sft.batch_size": 8,
        "sft.min_num_steps": 12,
        "sft.passes": 0.1,
        "reward.batch_size": 4,
        "reward.num_steps": (6,),
        "evaluation.problems": 24,
        "evaluation.levels": (1, 2),
        "evaluation.search_problems": 12,
        "evaluation.ood_problems": 4,
        "evaluation.rollouts": 3,
        "evaluation.candidates": 2,
    }
)


def count_down(n):
    """A function that kills this process when it is called for the n-th time."""
    left = [n]

    def passage(*args):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return passage


def replaced(module, name, before):
    """Call `before` with the arguments of a function each time it is called."""
    function = getattr(module, name)

    def wrapped(*args, **kwargs):
        before(*args)
        return function(*args, **kwargs)

    setattr(module, name, wrapped)


def arm(place, n):
    passage = count_down(n)
    if place == "search":
        import rstar_nb.search.mcts as mcts

        replaced(mcts, "backup", passage)
    elif place in ("sft", "ppm"):
        name = {"sft": "fine_tune", "ppm": "fit_pairs"}[place]
        train = getattr(TinyModels, name)

        def interrupted(*args, on_step=None, **kwargs):
            return train(*args, on_step=passage, **kwargs)

        setattr(TinyModels, name, staticmethod(interrupted))
    elif place == "checkpoint":  # after the weights are written, before the folder has its name
        replaced(
            store,
            "write_text",
            lambda path, text: passage() if str(path).endswith("complete.json") else None,
        )
    elif place == "file":
        # Before a file of rows is written: of a round pairs, selected, then the evaluation.
        import rstar_nb.evolve.measuring as measuring
        import rstar_nb.evolve.phases as phases

        replaced(phases, "write_lines", passage)
        replaced(measuring, "write_lines", passage)
    elif place == "line":  # in the middle of a line
        sealed = store._sealed

        def torn(row):
            text = sealed(row)
            if "nodes" in row:
                with open(os.environ["TORN_FILE"], "a") as f:
                    f.write(text[: len(text) // 2])
                    f.flush()
                passage()
            return text

        store._sealed = torn
    else:
        raise SystemExit(f"unknown place {place}")


if __name__ == "__main__":
    folder, *where = sys.argv[1:]
    if where:
        arm(where[0], int(where[1]))
    resume = os.path.exists(os.path.join(folder, "config.json"))
    evolve(folder, SETTINGS, resume=resume, quiet=True)
