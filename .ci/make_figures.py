"""Draw every picture under figures/ from the records kept there:

    python .ci/make_figures.py                 # from figures/default_run
    python .ci/make_figures.py runs/default    # take the record of this run first

A run's folder has hundreds of megabytes; its record is what the pictures need: settings, a line of
numbers per round, one search tree, one problem's trees in the first and last round, and programs
of the first round that were right by luck. The models of its second round go into the package, in
half precision, for lessons that look at trained ones.
"""

import json
import shutil
import sys
from pathlib import Path

from rstar_nb.evolve.loop import executor_for, load_settings
from rstar_nb.evolve.lucky import lucky_programs
from rstar_nb.evolve.two_rounds import read_two_rounds, two_rounds, write_two_rounds
from rstar_nb.measure.runs import load_round
from rstar_nb.search.tree import trajectories, tree_from_json, tree_to_json
from rstar_nb.show.loop import show_loop
from rstar_nb.show.rounds import plot_costs, plot_coverage, plot_rounds
from rstar_nb.show.trees import show_tree
from rstar_nb.show.two_rounds import show_two_rounds
from rstar_nb.store import read_lines

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ROOT / "figures"
MODELS = ROOT / "rstar_nb" / "static" / "round_2"


def metrics(record):
    return read_lines(record / "metrics.jsonl")


# File name -> picture of a record. A picture under figures/ that is not named here fails a test.
PICTURES = {
    "loop.png": lambda record: show_loop(),
    "rounds.png": lambda record: plot_rounds(metrics(record)),
    "coverage.png": lambda record: plot_coverage(metrics(record)),
    "levels.png": lambda record: plot_coverage(metrics(record), "policy"),
    "costs.png": lambda record: plot_costs(metrics(record)),
    "tree.png": lambda record: show_tree(
        tree_from_json(json.loads((record / "tree.json").read_text()))
    ),
    "two_rounds.png": lambda record: show_two_rounds(read_two_rounds(record)),
}


def draw(record, out):
    """Every picture of a record, into folder `out`."""
    for name, picture in PICTURES.items():
        picture(record).save(out / name)


def paired(run):
    """For each round with a search: right answers without it, with it, and with one of the two."""
    rounds = []
    for k in range(1, len(metrics(run))):
        rows = [r for r in read_lines(run / f"round_{k}" / "eval.jsonl") if r["split"] == "test"]
        searched = [r for r in rows if r["strategy"] == "mcts"]
        search = {r["problem_id"]: r["correct"] for r in searched}
        greedy = {r["problem_id"]: r["correct"] for r in rows if r["strategy"] == "greedy"}
        rounds.append(
            dict(
                round=k,
                n=len(search),
                policy=sum(greedy[i] for i in search),
                search=sum(search.values()),
                only_policy=sum(greedy[i] and not search[i] for i in search),
                only_search=sum(search[i] and not greedy[i] for i in search),
                oracle=sum(r["oracle"] for r in searched),
            )
        )
    return rounds


def candidates(run):
    """Rows of trees that were grown by the search, solved, and not too wide to read."""
    for row in read_lines(run / "round_1" / "search.jsonl"):
        grown = row["events"][0]["kind"] == "select"
        if grown and row["solved"] and row["level"] == 3 and 12 <= len(row["nodes"]) <= 30:
            yield row


def shows_something(tree):
    """Has the tree a wrong end too?"""
    return not all(t["correct"] for t in trajectories(tree))


def keep(run, figures):
    """Copy what the pictures need from a run's folder."""
    record = figures / "default_run"
    record.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "metrics.jsonl"):
        shutil.copy(run / name, record / name)
    (figures / "records").mkdir(exist_ok=True)
    seed = json.loads((run / "record.json").read_text())["seed"]
    shutil.copy(run / "record.json", figures / "records" / f"evolve_tiny_seed{seed}.json")
    tree = next(filter(shows_something, map(tree_from_json, candidates(run))))
    (record / "tree.json").write_text(json.dumps(tree_to_json(tree)) + "\n")
    (record / "paired.json").write_text(json.dumps(paired(run), indent=1) + "\n")
    write_two_rounds(record, two_rounds(run))
    with executor_for(load_settings(run)) as executor:
        lucky = lucky_programs(run / "round_1", executor)
    (record / "lucky.json").write_text(json.dumps(lucky, indent=1) + "\n")


def keep_models(run, target):
    """The policy and the PPM of a run's second round, in half precision."""
    shutil.rmtree(target, ignore_errors=True)
    _, policy, ppm = load_round(run, 2)
    for name, whole, model in (("policy", policy, policy), ("ppm", ppm, ppm.policy)):
        model.model.half()
        whole.save(target / name)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        keep(Path(sys.argv[1]), FIGURES)
        keep_models(Path(sys.argv[1]), MODELS)
    draw(FIGURES / "default_run", FIGURES)
