"""Train one tiny model on programs and one on chains of thought, and ask both the same questions:

    python .ci/compare_thoughts.py

A third model reads and writes the chains digit by digit. It may be interrupted at any time; the
same command goes on. With --only NAME one model is trained, so that several may be trained side
by side. The record, figures/records/thoughts.json, is of the models that are there; it is written
when both kinds are among them.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rstar_nb.executor.pool import Executor
from rstar_nb.measure.accuracy import measure_policy
from rstar_nb.measure.comparison import compare_with_first
from rstar_nb.measure.thoughts import WORDED, closed, judge_words, program_rows, spaced, word_rows
from rstar_nb.policy.policy import Policy
from rstar_nb.policy.steps import STEP_END, plain_prompt
from rstar_nb.policy.tiny import tiny_model, train_tokenizer
from rstar_nb.problems.generator import generate
from rstar_nb.search.agent import Agent
from rstar_nb.store import machine, write_text
from rstar_nb.training.loop import Checkpoint
from rstar_nb.training.sft import fine_tune

RECORDS = Path(__file__).resolve().parent.parent / "figures" / "records"


@dataclass(frozen=True)
class Setting:
    """What the models have in common."""

    seed: int = 41  # of all problems; no run draws from it
    examples: int = 2_000  # worked examples
    problems: int = 700  # held-out problems of all subjects; those in `WORDED` are asked
    num_layers: int = 3
    num_steps: int = 600  # optimiser steps
    batch_size: int = 16  # rows per optimiser step
    lr: float = 2e-3  # learning rate of AdamW
    muon_lr: float = 0.02  # of Muon, for the matrices inside


def drawn(setting, split, number) -> list:
    """The problems of a split whose every step is an equation."""
    problems = generate(number, split, setting.seed, kind="mix")
    return [p for p in problems if p.subject in WORDED]


def digit_prompt(question) -> str:
    return spaced(plain_prompt(question))


def read_programs(policy, problems, executor) -> list:
    """A row for each problem; a program notices that it is wrong if it gives no answer."""
    rows = measure_policy(Agent(policy, executor), problems)
    return [dict(row, noticed=row["answer"] is None) for row in rows]


def read_words(policy, problems, executor) -> list:
    """A row for each problem, judged by the equations in the text."""
    prefixes = [(p.question, []) for p in problems]
    written = policy.propose(prefixes, 1, [0] * len(problems), temperature=0, whole=True)
    rows = judge_words(problems, [closed(c.text) for (c,) in written], executor)
    return [dict(row, tokens=len(c.ids)) for row, (c,) in zip(rows, written, strict=True)]


def digit_rows(problems, executor) -> list:
    rows = word_rows(problems, executor)
    return [dict(row, steps=[spaced(step) for step in row["steps"]]) for row in rows]


ARMS = {
    "programs": (lambda problems, executor: program_rows(problems), plain_prompt, read_programs),
    "words": (word_rows, plain_prompt, read_words),
    "digits": (digit_rows, digit_prompt, read_words),
}


def new_policy(problems, executor, prompt, setting) -> Policy:
    """A model with the same random weights and the same tokenizer for every arm."""
    rows = program_rows(problems) + word_rows(problems, executor)
    texts = [plain_prompt(r["question"]) + STEP_END.join(r["steps"]) + STEP_END for r in rows]
    tokenizer = train_tokenizer(texts)
    model = tiny_model(len(tokenizer), num_hidden_layers=setting.num_layers)
    # A step that is written digit by digit has more tokens than one of 48.
    return Policy(model, tokenizer, prompt=prompt, max_step_tokens=80)


def trained(name, train, setting, work, executor) -> Policy:
    """The model of one arm after its optimiser steps, some of them from a checkpoint."""
    rows_of, prompt, _ = ARMS[name]
    policy = new_policy(train, executor, prompt, setting)
    fine_tune(
        policy,
        rows_of(train, executor),
        setting.num_steps,
        setting.batch_size,
        setting.lr,
        setting.seed,
        on_step=lambda step, loss: step % 25 or say(f"{name}: step {step}, loss {loss:.3f}"),
        muon_lr=setting.muon_lr,
        checkpoint=Checkpoint(work / f"{name}.pt"),
    )
    return policy


def measured(name, setting, work) -> dict:
    """One arm: trained, and its answers to the held-out problems."""
    train = drawn(setting, "train", setting.examples * 2)[: setting.examples]
    test = drawn(setting, "test", setting.problems)
    begin, cpu = time.perf_counter(), time.process_time()
    # On a busy machine a right equation may wait for seconds; it must not count as false.
    with Executor(workers=1, preload=(), wall=120) as executor:
        policy = trained(name, train, setting, work, executor)
        rows = ARMS[name][2](policy, test, executor)
    seconds = dict(
        seconds=round(time.perf_counter() - begin, 1),
        cpu_seconds=round(time.process_time() - cpu, 1),
    )
    say(f"{name}: {sum(row['correct'] for row in rows)} of {len(rows)}, {seconds}")
    weights = sum(p.numel() for p in policy.model.parameters())
    return dict(weights=weights, **seconds, rows=rows)


OF_THE_PROBLEM = ("problem_id", "level", "subject")


def record_of(arms, setting) -> dict:
    """Everything the lesson shows. What all arms share of a row stands there once."""
    rows = {name: arm["rows"] for name, arm in arms.items()}
    outcomes = {name: [row["correct"] for row in some] for name, some in rows.items()}
    asked = [{key: row[key] for key in OF_THE_PROBLEM} for row in rows["programs"]]
    left_out = (*OF_THE_PROBLEM, "strategy")
    slim = {
        name: [{k: v for k, v in row.items() if k not in left_out} for row in some]
        for name, some in rows.items()
    }
    return dict(
        setting=asdict(setting),
        subjects=WORDED,
        machine=machine(),
        comparisons=compare_with_first(outcomes),
        problems=asked,
        arms={name: dict(arm, rows=slim[name]) for name, arm in arms.items()},
    )


def say(text):
    print(text, flush=True)


def options():
    """The command line, after a check that the folder holds no models of another setting."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=ARMS)
    parser.add_argument("--work", type=Path, default=Path("runs/thoughts"), help="checkpoints")
    parser.add_argument("--records", type=Path, default=RECORDS)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    about, text = args.work / "setting.json", json.dumps(asdict(Setting()))
    if about.exists() and about.read_text() != text:
        parser.error(f"{args.work} holds models of another setting; choose another --work")
    about.write_text(text)
    return args


def main():
    args, setting = options(), Setting()
    files = {name: args.work / f"{name}.json" for name in ARMS}
    for name in [args.only] if args.only else ARMS:
        if not files[name].exists():
            write_text(files[name], json.dumps(measured(name, setting, args.work)))
    arms = {name: json.loads(path.read_text()) for name, path in files.items() if path.exists()}
    if {"programs", "words"} <= set(arms):
        path = args.records / "thoughts.json"
        write_text(path, json.dumps(record_of(arms, setting)) + "\n")
        say(path)


if __name__ == "__main__":
    main()
