"""Copy a run's record to figures/default_run and figures/records, and draw the README's figures from it:

    python .ci/make_figures.py runs/default
"""
import json
import shutil
import sys
from pathlib import Path

from rstar_nb.rounds import plot_coverage, plot_rounds
from rstar_nb.search import tree_from_json
from rstar_nb.store import read_lines
from rstar_nb.viz import show_tree

FIGURES = Path(__file__).resolve().parent.parent / "figures"


def main(run):
    record = FIGURES / "default_run"
    record.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "metrics.jsonl"): shutil.copy(run / name, record / name)
    (FIGURES / "records").mkdir(exist_ok=True)
    seed = json.loads((run / "record.json").read_text())["seed"]
    shutil.copy(run / "record.json", FIGURES / "records" / f"evolve_tiny_seed{seed}.json")
    metrics = read_lines(record / "metrics.jsonl")
    (FIGURES / "rounds.png").write_bytes(plot_rounds(metrics).png())
    (FIGURES / "coverage.png").write_bytes(plot_coverage(metrics).png())
    # A tree that shows something: solved, with some wrong ends, and not too wide to read.
    trees = [row for row in read_lines(run / "round_1" / "search.jsonl") if row["solved"] and row["level"] == 3 and 12 <= len(row["nodes"]) <= 30]
    tree = trees[0]
    (FIGURES / "tree.png").write_bytes(show_tree(tree_from_json({k: v for k, v in tree.items() if k not in ("level", "subject", "solved")})).png())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
