"""A small run in a process of its own, which may be told to kill itself:

    python small_run.py FOLDER [PLACE N]

PLACE is a place in the loop; at its N-th passage the process gets SIGKILL.
"""

import os
import signal
import sys

import rstar_nb.evolve.loop as loop
import rstar_nb.store as store
from rstar_nb.search.mcts import backup

# Only levels 1 and 2, so that a base trained for seconds already solves some of them.
SETTINGS = dict(
    rounds=2,
    problems=(24,),
    trees=(24,),
    solved_trees=(4,),
    min_level=(1,),
    max_level=(2,),
    carry=6,
    wave=12,
    rollouts=(3,),
    more_rollouts=(4, 5),
    candidates=(3,),
    ppm_from=2,
    seed_solutions=240,
    base_steps=(360, 1),
    sft_at_least=12,
    sft_passes=0.1,
    ppm_steps=(6,),
    test_problems=24,
    ood_problems=4,
    search_problems=12,
    eval_rollouts=3,
    eval_candidates=2,
)


def count_down(n):
    """A function that kills this process when it is called for the n-th time."""
    left = [n]

    def passage(*args):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return passage


def arm(place, n):
    passage = count_down(n)
    if place == "search":
        import rstar_nb.search.mcts as module

        module.backup = lambda *a: (passage(), backup(*a))[1]
    elif place in ("sft", "ppm"):
        name = {"sft": "fine_tune", "ppm": "fit_pairs"}[place]
        train = getattr(loop.TinyModels, name)
        setattr(
            loop.TinyModels,
            name,
            staticmethod(lambda *a, on_step=None, **k: train(*a, on_step=passage, **k)),
        )
    elif place == "checkpoint":  # after the weights are written, before the folder has its name
        write_text = store.write_text
        store.write_text = lambda path, text: (
            passage() if str(path).endswith("complete.json") else None,
            write_text(path, text),
        )[1]
    elif (
        place == "file"
    ):  # before a file of rows is written: of a round the 1st is pairs, the 2nd selected, the 3rd the evaluation
        write_lines = loop.write_lines
        loop.write_lines = lambda path, rows: (passage(), write_lines(path, rows))[1]
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
    import rstar_nb.problems.generator as problems

    generate = problems.generate
    loop.generate = lambda n, split="train", seed=0, levels=None, start=0, weights=None: generate(
        n, split, seed, levels or ((1, 2) if split != "ood" else None), start, weights
    )
    settings = loop.Settings(**SETTINGS)
    loop.evolve(
        folder, settings, resume=os.path.exists(os.path.join(folder, "config.json")), quiet=True
    )
