"""Make the records that the lessons on test-time search and on why it works are drawn from:

    python .ci/measure.py runs/default                 all of them
    python .ci/measure.py runs/default --only curves   one of: fresh, plateau, curves, kinds, arms

It may be interrupted at any time; the same command goes on. What it measures stays under --work, the small records
that the notebooks read go to figures/records.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from rstar_nb.cli.app import run_executor
from rstar_nb.cli.base import numbers
from rstar_nb.evolve.ablations import SMALL, run_arms, small_world, write_arms
from rstar_nb.evolve.analysis import curves
from rstar_nb.evolve.plateau import plateau
from rstar_nb.evolve.curriculum import test_problems
from rstar_nb.evolve.loop import load_settings
from rstar_nb.evolve.settings import Settings
from rstar_nb.measure.accuracy import evaluate_policy
from rstar_nb.measure.intervals import tally
from rstar_nb.measure.kinds import measure_kinds
from rstar_nb.policy.policy import Policy
from rstar_nb.problems.generator import generate
from rstar_nb.store import machine, write_text

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("run", type=Path)
parser.add_argument("--only", default="fresh,plateau,curves,kinds,arms")
parser.add_argument(
    "--work", type=Path, default=Path("runs"), help="rows and models of the measurements"
)
parser.add_argument(
    "--records", type=Path, default=Path(__file__).resolve().parent.parent / "figures" / "records"
)
parser.add_argument("--n", type=int, default=120, help="held-out problems for curves and kinds")
parser.add_argument(
    "--budgets", default="100,300,900", help="tokens the policy may write for a problem"
)
parser.add_argument("--seeds", default="0,1", help="seeds of the arms")
parser.add_argument("--arms", help="names, separated by commas (default: all)")
args = parser.parse_args()


def record(name, found, **more):
    write_text(
        args.records / f"{name}.json",
        json.dumps(dict(found, machine=machine(), **more), indent=1) + "\n",
    )
    print(args.records / f"{name}.json", flush=True)


def of_run():
    return json.loads((args.run / "config.json").read_text())["settings"]


say = lambda text: print(text, flush=True)
budgets = numbers(args.budgets, "--budgets")
for what in args.only.split(","):
    if (
        what == "fresh"
    ):  # held-out problems that no run's curve is drawn from: settings were chosen by looking at those
        problems = generate(600, "test", seed=1000)
        with run_executor(args.run) as executor:
            found = [
                dict(
                    round=k,
                    policy=tally(
                        evaluate_policy(
                            Policy.load(args.run / f"round_{k}" / "policy"), executor, problems
                        )
                    ),
                )
                for k in range(load_settings(args.run).rounds + 1)
            ]
        record("fresh_test", dict(seed=1000, rounds=found), settings=of_run())
    elif what == "plateau":
        record("plateau", plateau(args.run), settings=of_run())
    elif what == "curves":
        with run_executor(args.run) as executor:
            record(
                "eval_curves",
                curves(
                    args.run,
                    test_problems(load_settings(args.run))[: args.n],
                    executor,
                    args.work / "curves" / args.run.name,
                    budgets,
                    say=say,
                ),
                settings=of_run(),
            )
    elif what == "kinds":
        with run_executor(args.run) as executor:
            found = measure_kinds(
                args.run,
                args.work / "kinds" / args.run.name,
                test_problems(load_settings(args.run))[: args.n],
                executor,
                budgets=budgets,
                say=say,
            )
        for r in found["accuracy"]:
            r.pop("by_subject")
        record("kinds", dict(found, run=args.run.name), settings=of_run())
    elif what == "arms":
        run_arms(
            args.work / "ablations",
            args.arms.split(",") if args.arms else None,
            numbers(args.seeds, "--seeds"),
            replace(Settings(), **SMALL),
            quiet=True,
            say=say,
            world=small_world(),
        )
        write_text(
            args.records / "ablations.json",
            json.dumps(write_arms(args.work / "ablations"), indent=1) + "\n",
        )
    else:
        parser.error(f"unknown {what!r}; choose from fresh, plateau, curves, kinds, arms")
