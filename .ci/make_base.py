"""Make the base that the package ships, and its record:

    python .ci/make_base.py

Takes about twenty minutes on one core. It may be interrupted; the same command goes on. The weights
go to rstar_nb/static/base, what they can do on held-out problems to figures/records/base.json.
"""

import argparse
import json
import shutil
import time
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from rich.progress import Progress

from rstar_nb.evolve.base import Recipe, make_base, shipped_base
from rstar_nb.executor.pool import Executor
from rstar_nb.measure.accuracy import measure_policy
from rstar_nb.measure.intervals import tally
from rstar_nb.problems.generator import generate
from rstar_nb.search.agent import Agent
from rstar_nb.store import append_lines, machine, read_lines, write_text

ROOT = Path(__file__).resolve().parent.parent


def measured(policy) -> dict:
    """The policy alone on the held-out problems of seed 0."""
    with Executor(workers=2) as executor:
        return tally(measure_policy(Agent(policy, executor), generate(600, "test", kind="mix")))


@contextmanager
def timed(folder: Path):
    """Note the seconds of the block in `folder`, where those of earlier sittings stand."""
    begin = time.perf_counter()
    try:
        yield
    finally:
        append_lines(folder / "sittings.jsonl", [dict(seconds=time.perf_counter() - begin)])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("runs/base"), help="checkpoints")
    args = parser.parse_args()
    recipe = Recipe()
    with Progress() as bar, timed(args.work):
        task = bar.add_task("base", total=sum(stage.num_steps for stage in recipe.stages))
        policy = make_base(args.work, recipe, on_step=lambda *_: bar.advance(task))
    target = ROOT / "rstar_nb" / "static" / "base"
    shutil.rmtree(target, ignore_errors=True)
    policy.save(target)
    record = dict(
        recipe=asdict(recipe),
        weights=sum(p.numel() for p in policy.model.parameters()),
        seconds=round(sum(row["seconds"] for row in read_lines(args.work / "sittings.jsonl")), 1),
        machine=dict(machine(), torch_threads=torch.get_num_threads()),
        policy=measured(shipped_base()),
    )
    path = ROOT / "figures" / "records" / "base.json"
    write_text(path, json.dumps(record, indent=1) + "\n")
    print(path, record["policy"]["correct"], record["policy"]["n"])


if __name__ == "__main__":
    main()
