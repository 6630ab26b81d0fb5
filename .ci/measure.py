"""Make the records that the lessons on deep thinking and on why it works are drawn from:

    python .ci/measure.py runs/default                 all of them
    python .ci/measure.py runs/default --only curves   one of: fresh, plateau, coverage, search,
                                                       judges, curves, kinds, arms

It may be interrupted at any time; the same command goes on. What it measures stays under --work,
the small records that the notebooks read go to figures/records.
"""

import argparse
import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rstar_nb.cli.base import executor_of, held_out_problems, numbers
from rstar_nb.evolve.ablations import SMALL_WORLD, run_arms, write_arms
from rstar_nb.evolve.loop import load_settings
from rstar_nb.evolve.plateau import plateau
from rstar_nb.evolve.settings import Settings
from rstar_nb.evolve.tiny import TinyModels
from rstar_nb.measure.accuracy import measure_policy
from rstar_nb.measure.comparison import holm
from rstar_nb.measure.coverage import coverage_of_ways, wrong_alone
from rstar_nb.measure.curves import strategy_curves
from rstar_nb.measure.intervals import tally
from rstar_nb.measure.kinds import KIND_STRATEGIES, Fit, measure_kinds
from rstar_nb.measure.measurement import Measurement, comparisons
from rstar_nb.measure.payoff import payoff_rows
from rstar_nb.measure.runs import finished_round, load_round, measure_run
from rstar_nb.policy.parallel import ParallelPolicy, workers
from rstar_nb.problems.generator import generate
from rstar_nb.reward.heads import READS
from rstar_nb.reward.model import RewardModel
from rstar_nb.reward.pairs import held_out, pair_accuracy
from rstar_nb.search.agent import Agent, SearchOptions
from rstar_nb.search.votes import agreed
from rstar_nb.store import machine, read_lines, write_text

RECORDS = Path(__file__).resolve().parent.parent / "figures" / "records"


def say(text):
    print(text, flush=True)


@dataclass(frozen=True)
class ParallelModels(TinyModels):
    """Policies that write in several processes."""

    team: list = None  # of `Worker`

    def load_policy(self, folder) -> ParallelPolicy:
        return ParallelPolicy(super().load_policy(folder), self.team)


def measurement_of(args, strategies=()):
    """The first held-out problems of a run at every budget."""
    problems = held_out_problems(args.run, None, args.n)
    return Measurement(problems, strategies, tuple(args.budgets))


def fresh(args):
    """The policies of a run on held-out problems that no run's curve is drawn from.

    Settings were chosen while looking at those curves.
    """
    problems = generate(600, "test", seed=1000, kind=load_settings(args.run).problems.kind)
    rounds = []
    with executor_of(args.run) as executor:
        for k in range(load_settings(args.run).rounds + 1):
            agent = Agent(load_round(args.run, k, models=args.models)[1], executor)
            rounds.append(dict(round=k, policy=tally(measure_policy(agent, problems))))
    return dict(seed=1000, rounds=rounds)


def coverage(args):
    """What each way of searching finds, and for how many tokens, where the policy is wrong."""
    kind = load_settings(args.run).problems.kind
    drawn = generate(1200, "train", seed=4321, levels=range(3, 7), kind=kind)
    rounds = []
    with executor_of(args.run) as executor:
        for k in range(load_settings(args.run).rounds):
            _, policy, ppm = load_round(args.run, k, models=args.models)
            agent = Agent(policy, executor, ppm)
            problems = wrong_alone(drawn, agent)[: args.n]
            say(f"coverage, round {k}: {len(problems)} problems")
            outcomes = coverage_of_ways(problems, agent, COVERAGE_TOKENS)
            rounds.append(dict(round=k, n=len(problems), ways=outcomes))
    return dict(run=args.run.name, problems_seed=4321, budget=COVERAGE_TOKENS, rounds=rounds)


def measured(run) -> list:
    """The rounds of a run that have been measured; a run of another seed may be unfinished."""
    return [m["round"] for m in read_lines(run / "metrics.jsonl") if m["round"]]


def search(args):
    """The search with and without its PPM beside the policy and a vote at equal tokens."""
    rows = []
    rounds = {}
    share = load_settings(args.run).evaluation.agreed
    options = replace(SEARCH_OPTIONS, enough=partial(agreed, share=share))
    with executor_of(args.run) as executor:
        for run in (args.run, *args.others):
            problems = held_out_problems(run, None, SEARCH_PROBLEMS)
            measurement = Measurement(problems, SEARCH_STRATEGIES, SEARCH_TOKENS, options)
            out = args.work / "search" / run.name
            result = measure_run(
                run, measurement, executor, measured(run), models=args.models, out=out, say=say
            )
            rounds[run.name] = result.pop("rounds")
            for entry in rounds[run.name]:
                asked = f"{run.name}/{entry['round']}"
                for row in read_lines(Path(entry.pop("folder")) / "rows.jsonl"):
                    name = f"{asked}/{row['problem_id']}"
                    rows.append(dict(row, problem_id=name, round=entry["round"]))
                for of_strategy in entry["results"]:
                    of_strategy.pop("by_subject")
    early = pooled([row for row in rows if row["round"] <= EARLY_ROUNDS])
    return dict(
        result,
        agreed=share,
        runs=rounds,
        pooled=pooled(rows),
        pooled_early=early,
        payoff=payoff_rows(rows, lambda row: row["problem_id"].rsplit("/", 1)[-1]),
    )


def pooled(rows) -> list:
    """Rounds and runs together: every two strategies, paired by question; one family of tests."""
    compared = []
    for i, name in enumerate(SEARCH_STRATEGIES[:-1]):
        some = [row for row in rows if row["strategy"] in SEARCH_STRATEGIES[i:]]
        compared += comparisons(sorted(some, key=lambda row: row["strategy"] != name))
    adjusted = holm([c["p"] for c in compared])
    return [dict(c, p_holm=p) for c, p in zip(compared, adjusted, strict=True)]


def is_held_out(pair):
    return held_out(pair["problem_id"])


def judges(args):
    """Each round's PPM, and the same before its training, on held-out pairs of each round."""
    reads = READS[load_settings(args.run).reward.reads]
    rounds = range(1, load_settings(args.run).rounds + 1)
    pairs = {
        k: list(filter(is_held_out, read_lines(args.run / f"round_{k}" / "pairs.jsonl")))
        for k in rounds
    }
    rows = []
    for k in rounds:
        _, policy, ppm = load_round(args.run, k)
        for trained, judge in ((False, RewardModel(policy, reads=reads)), (True, ppm)):
            accuracy = {j: pair_accuracy(judge, some) for j, some in pairs.items()}
            rows.append(dict(ppm=k, trained=trained, pairs=accuracy))
    return dict(run=args.run.name, judges=rows)


def curves(args):
    """Every strategy on every round."""
    rounds = range(load_settings(args.run).rounds + 1)
    out = args.work / "curves" / args.run.name
    with executor_of(args.run) as executor:
        return strategy_curves(args.run, measurement_of(args), executor, rounds, out, say)


def kinds(args):
    """Three kinds of reward model from the trees of the run."""
    k, _, _ = finished_round(args.run)
    group = load_settings(args.run).reward.in_round(k)
    fit = Fit(group.num_steps, group.batch_size, group.lr, READS[group.reads])
    out = args.work / "kinds" / args.run.name
    measurement = measurement_of(args, KIND_STRATEGIES)
    with executor_of(args.run) as executor:
        result = measure_kinds(args.run, out, measurement, executor, fit, k, say)
    for row in result["accuracy"]:
        row.pop("by_subject")
    return dict(result, run=args.run.name)


def arms(args):
    """The loop with one thing changed at a time; its record has its settings already."""
    out = args.work / "ablations"
    settings = Settings().with_values(SMALL_WORLD)
    run_arms(out, args.arms, args.seeds, settings, quiet=True, say=say)
    return write_arms(out)


COVERAGE_TOKENS = 400  # most tokens for a problem
SEARCH_PROBLEMS = 300
SEARCH_TOKENS = (250,)
EARLY_ROUNDS = 3
SEARCH_OPTIONS = SearchOptions(candidates=8, max_depth=9, temperature=0.8)
SEARCH_STRATEGIES = ("majority", "greedy", "second_thoughts/no_ppm", "second_thoughts/vote")

MEASUREMENTS = {
    "fresh": ("fresh_test", fresh),
    "plateau": ("plateau", lambda args: plateau(args.run)),
    "coverage": ("coverage_tokens", coverage),
    "search": ("search_rounds", search),
    "judges": ("judges", judges),
    "curves": ("eval_curves", curves),
    "kinds": ("kinds", kinds),
    "arms": ("ablations", arms),
}


def write_record(name, result, args):
    """The result, the settings of the run and the machine, as figures/records/NAME.json."""
    if name != "ablations":
        settings = json.loads((args.run / "config.json").read_text())["settings"]
        result = dict(result, machine=machine(), settings=settings)
    path = args.records / f"{name}.json"
    write_text(path, json.dumps(result, indent=1) + "\n")
    say(path)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument(
        "--others", type=Path, nargs="*", default=[], help="runs of other seeds, for the search"
    )
    parser.add_argument("--only", default=",".join(MEASUREMENTS))
    parser.add_argument("--work", type=Path, default=Path("runs"), help="rows and models")
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--n", type=int, default=120, help="problems for curves and kinds")
    parser.add_argument("--budgets", default="100,300,900", help="tokens written for a problem")
    parser.add_argument("--seeds", default="0,1", help="seeds of the arms")
    parser.add_argument("--arms", help="names, separated by commas (default: all)")
    parser.add_argument("--processes", type=int, default=2, help="that write at once")
    args = parser.parse_args()
    args.budgets = numbers(args.budgets, "--budgets")
    args.seeds = numbers(args.seeds, "--seeds")
    args.arms = args.arms.split(",") if args.arms else None
    names = args.only.split(",")
    for name in names:
        if name not in MEASUREMENTS:
            parser.error(f"unknown {name!r}; choose from {', '.join(MEASUREMENTS)}")
    with workers(args.processes - 1) as team:
        args.models = ParallelModels(team=team)
        for name in names:
            record, measurement = MEASUREMENTS[name]
            write_record(record, measurement(args), args)


if __name__ == "__main__":
    main()
