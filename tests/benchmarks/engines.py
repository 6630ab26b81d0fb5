"""What does the tree cost, beside the trees of two other engines?

    python tests/benchmarks/engines.py
        microseconds per expansion while a tree grows, a stub as the policy
    python tests/benchmarks/engines.py --run runs/default
        the same tiny model behind each engine, at 1, 8 and 32 problems
    python tests/benchmarks/engines.py --profile
        where our own time goes

With --record FILE.json the numbers are put into that file, each measurement in its own place;
figures/records/engines.json was made so.

The others are optional. They are not needed to use rstar_nb; what they need themselves is small,
so leave their dependencies out:

    pip install --no-deps --target /tmp/engines llm-reasoners treequest ulid-py tqdm scipy
    PYTHONPATH=/tmp/engines python tests/benchmarks/engines.py

Every engine grows a tree with 4 candidates per expansion and programs of 8 steps, and scores each
step with the same pseudo-random number. A tree of that shape is full at 87,381 nodes, and long
before that most rollouts expand nothing, so growth is also measured with programs of 12 steps.
"""

import argparse
import gc
import importlib.util
import json
import os
import sys
import time
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))
from rstar_nb.executor.pool import Executor
from rstar_nb.executor.result import Result
from rstar_nb.policy.steps import STEP_END, Candidate, derive_seed, is_terminal
from rstar_nb.search.agent import Agent, SearchOptions
from rstar_nb.search.mcts import search
from rstar_nb.search.tree import ROOT, Tree
from rstar_nb.store import machine

K, DEPTH = 4, 8


def score(steps):
    """A number in [0, 1] that follows from the text of the last step."""
    return hash(steps[-1]) % 1009 / 1008


class Stub:
    """A policy that costs nothing: four new steps, the last of them an answer."""

    def __init__(self, depth=DEPTH):
        self.depth, self.calls = depth, 0

    def propose(self, prefixes, k, seeds, temperature=1.0, top_k=0, whole=False):
        rows = []
        for _, steps in prefixes:
            self.calls += 1
            name = "answer" if len(steps) == self.depth - 1 else "x"
            rows.append(
                [Candidate(f"{name} = {self.calls * k + j}", -1.0, (1,), True) for j in range(k)]
            )
        return rows


class Runs:
    """An executor that costs nothing."""

    OK = Result("ok", 1, "", None, 0.0)

    def run(self, programs):
        return [self.OK] * len(programs)


class Scores:
    """A PPM that costs nothing."""

    def score(self, prefixes):
        return [2 * score(s) - 1 for _, s in prefixes]


class Ours:
    """rstar_nb: many trees in lock-step."""

    name = "rstar_nb"

    def __init__(self, questions, policy, executor, depth=DEPTH, seed=0):
        self.trees = [Tree(q, q) for q in questions]
        self.policy = policy
        self.agent = Agent(policy, executor, Scores())
        self.options = SearchOptions(candidates=K, max_depth=depth, seed=seed)

    def iterate(self, times=1):
        rollouts = max(t.rollouts for t in self.trees) + times
        search(self.trees, self.agent, replace(self.options, rollouts=rollouts))

    def finished(self):
        return sum(t.nodes[ROOT].exhausted for t in self.trees) == len(self.trees)

    def rollouts(self):
        return sum(t.rollouts for t in self.trees)

    def programs(self):
        return len(
            {
                (t.question, *t.steps(n.id))
                for t in self.trees
                for n in t.nodes
                if n.terminal and n.status == "ok"
            }
        )


def children(policy, executor, prefixes, seeds):
    """Steps that run, for each (question, steps)."""
    proposals = policy.propose(prefixes, K, seeds)
    extended = [
        [list(steps) + [c.text] for c in candidates if c.finished and c.text.strip()]
        for (_, steps), candidates in zip(prefixes, proposals)
    ]
    results = iter(executor.run([STEP_END.join(p) for programs in extended for p in programs]))
    return [[p for p in programs if next(results).status == "ok"] for programs in extended]


class Reasoners:
    """llm-reasoners: MCTS.iterate, one question after the other."""

    name = package = "llm-reasoners"

    def __init__(self, questions, policy, executor, depth=DEPTH, seed=0):
        from reasoners.algorithm import MCTS
        from reasoners.algorithm.mcts import MCTSNode

        self.searches, self.n = [], 0
        outer = self

        class World:
            """State = (question, steps)."""

            def step(self, state, action):
                return (state[0], action), {}

            def is_terminal(self, state):
                return bool(state[1]) and is_terminal(state[1][-1])

        class Config:
            def get_actions(self, state):
                outer.n += 1
                return children(policy, executor, [state], [derive_seed(seed, outer.n)])[0]

            def fast_reward(self, state, action):
                return score(action), {}

            def reward(self, state, action, **_):
                return score(action), {}

        for q in questions:
            # A mean instead of its default, a sum, keeps Q in [0, 1]: with a sum it walks the
            # first finished path for ever.
            engine = MCTS(
                depth_limit=depth,
                w_exp=2.0,
                cum_reward=lambda rewards: sum(rewards) / len(rewards),
                uct_with_fast_reward=False,
                output_strategy="last_iter",
            )
            engine.world_model, engine.search_config = World(), Config()
            engine.root = MCTSNode(state=(q, []), action=None, parent=None, calc_q=engine.calc_q)
            self.searches.append(engine)
        self.count = 0

    def iterate(self, times=1):
        for engine in self.searches:
            for _ in range(times):
                engine.iterate(engine.root)
                self.count += 1

    def finished(self):
        return False

    def rollouts(self):
        return self.count

    def programs(self):
        finished, todo = set(), [(e.root.state[0], e.root) for e in self.searches]
        while todo:
            question, n = todo.pop()
            if n.action and is_terminal(n.action[-1]):
                finished.add((question, *n.action))
            todo += [(question, c) for c in n.children or []]
        return len(finished)


class TreeQuest:
    """treequest: StandardMCTS through ask and tell.

    That lets several questions share a call of the model. It knows no end of a program: an ended
    one is not expanded by us.
    """

    name = package = "treequest"

    def __init__(self, questions, policy, executor, depth=DEPTH, seed=0):
        from treequest import StandardMCTS

        self.algorithm = StandardMCTS(samples_per_action=K, exploration_weight=2.0)
        self.states, self.questions, self.policy, self.executor, self.n, self.seed = (
            [self.algorithm.init_tree() for _ in questions],
            questions,
            policy,
            executor,
            0,
            seed,
        )
        self.ended = set()

    def iterate(self, times=1):
        for _ in range(times):
            asked = []
            for i, s in enumerate(self.states):
                self.states[i], trials = self.algorithm.ask_batch(s, K, ["step"])
                asked.append(trials)
            prefixes = [
                (q, trials[0].parent_state or []) for q, trials in zip(self.questions, asked)
            ]
            self.n += len(prefixes)
            going = [
                i for i, (_, steps) in enumerate(prefixes) if not (steps and is_terminal(steps[-1]))
            ]
            programs = (
                dict(
                    zip(
                        going,
                        children(
                            self.policy,
                            self.executor,
                            [prefixes[i] for i in going],
                            [derive_seed(self.seed, self.n, i) for i in going],
                        ),
                    )
                )
                if going
                else {}
            )
            for i, trials in enumerate(asked):
                # It must be told something for each trial; what did not run, or lies behind an
                # end, is worth nothing.
                longer = programs.get(i, [])
                for j, trial in enumerate(trials):
                    result = (
                        (longer[j], score(longer[j]))
                        if j < len(longer)
                        else (
                            prefixes[i][1] + ["pass"] if prefixes[i][1] == [] else prefixes[i][1],
                            0.0,
                        )
                    )
                    self.states[i] = self.algorithm.tell(self.states[i], trial.trial_id, result)
                self.ended |= {(self.questions[i], *p) for p in longer if is_terminal(p[-1])}

    def nodes(self):
        return sum(s.tree.size for s in self.states)

    def finished(self):
        return False

    def rollouts(self):
        return self.n

    def programs(self):
        return len(self.ended)


def installed():
    """The engines that can be driven here; says what is missing."""
    engines = [Ours]
    for engine, module, package in (
        (Reasoners, "reasoners", "llm-reasoners"),
        (TreeQuest, "treequest", "treequest"),
    ):
        try:
            if importlib.util.find_spec(module) is None:
                raise ImportError("not installed")
            importlib.import_module(module + (".algorithm" if module == "reasoners" else ""))
            engines.append(engine)
            print(f"{package} {version(package)}")
        except (ImportError, PackageNotFoundError) as e:
            print(
                f"{package}: left out ({e}); pip install --no-deps --target /tmp/engines {package}"
            )
    return engines


LIMIT = 60  # CPU seconds to grow a tree from one size to the next


def grow_fast(engine, size):
    """Grow a tree to `size` nodes. Raises RuntimeError if that takes too long.

    treequest sorts all nodes at each `tell`, which would take hours: while growing, and only then,
    nodes are looked up in a list.
    """
    if engine.name != "treequest":
        start = time.process_time()
        while nodes_of(engine) < size and not engine.finished():
            engine.iterate(8)
            if time.process_time() - start > LIMIT:
                raise RuntimeError(
                    f"{engine.name}: {nodes_of(engine):,} nodes after {LIMIT} s more"
                )
        return
    from treequest.algos.tree import Tree as Theirs

    slow, add, listed = (
        Theirs.get_node,
        Theirs.add_node,
        {id(s.tree): s.tree.get_nodes() for s in engine.states},
    )

    def add_and_list(self, *args, **kwargs):
        node = add(self, *args, **kwargs)
        listed[id(self)].append(node)
        return node

    Theirs.get_node, Theirs.add_node = (lambda self, i: listed[id(self)][i + 1]), add_and_list
    try:
        while engine.nodes() < size:
            engine.iterate()
    finally:
        Theirs.get_node, Theirs.add_node = slow, add


def nodes_of(engine):
    """Nodes, without walking the tree: each expansion makes four."""
    return engine.policy.calls * K + 1 if engine.name == "rstar_nb" else engine.n * K + 1


def per_expansion(engine, policy, size, seconds):
    """CPU microseconds (per expansion, per rollout) at `size` nodes, less what the stubs cost."""
    grow_fast(engine, size)
    before, rollouts, start = nodes_of(engine), engine.rollouts(), time.process_time()
    # At least a tenth more nodes, or as many as the time allows.
    while (
        time.process_time() - start < seconds
        and nodes_of(engine) < size * 1.1 + 400
        and not engine.finished()
    ):
        engine.iterate(8)
    took, n = time.process_time() - start, (nodes_of(engine) - before) // K
    begin = time.process_time()
    fake = Stub(policy.depth)
    for _ in range(max(200, n)):
        Runs().run(fake.propose([("q", ["x"] * 4)], K, [0])[0])
        Scores().score([("q", ["x"])] * K)
    stub = (time.process_time() - begin) / max(200, n)
    return (took / n - stub) * 1e6 if n else float("nan"), (took - stub * n) / max(
        1, engine.rollouts() - rollouts
    ) * 1e6


def growth(engines, sizes, seconds):
    table = []
    print(f"\nmicroseconds of CPU per expansion of {K} children, one tree, stub policy\n")
    for depth, mine in ((DEPTH, [s for s in sizes if s < 50_000]), (12, sizes)):
        if not mine:
            continue
        print(
            f"programs of {depth} steps | "
            + " | ".join(f"{s:,} nodes" for s in mine)
            + f" | nodes a second at {mine[0]:,} and {mine[-1]:,}\n"
            + "---|" * (len(mine) + 2)
        )
        for cls in engines:
            policy, times = Stub(depth), []
            engine = cls(["q"], policy, Runs(), depth)
            for size in mine:
                try:
                    times.append(per_expansion(engine, policy, size, seconds)[0])
                except RuntimeError as e:
                    print(e)
                    times.append(float("nan"))
            table.append(
                dict(
                    engine=cls.name,
                    depth=depth,
                    microseconds={
                        str(s): None if t != t else round(t, 1) for s, t in zip(mine, times)
                    },
                )
            )
            print(
                f"{cls.name} | "
                + " | ".join(f"{t:,.1f}" for t in times)
                + f" | {K / times[0] * 1e6:,.0f} and {K / times[-1] * 1e6:,.0f}",
                flush=True,
            )
            del engine
            gc.collect()
    return dict(growth=table)


class Timed:
    """A policy or executor that notes the time spent in it and the tokens it made."""

    def __init__(self, inner):
        self.inner, self.seconds, self.tokens, self.calls = inner, 0.0, 0, 0

    def _time(self, name, *args, **options):
        start = time.perf_counter()
        result = getattr(self.inner, name)(*args, **options)
        self.seconds += time.perf_counter() - start
        self.calls += 1
        return result

    def propose(self, *args, **options):
        proposals = self._time("propose", *args, **options)
        self.tokens += sum(len(c.ids) for candidates in proposals for c in candidates)
        return proposals

    def run(self, programs):
        return self._time("run", programs)


def with_model(engines, run, iterations, counts):
    from rstar_nb.measure.runs import load_round
    from rstar_nb.problems.generator import generate

    number, policy, _ = load_round(run)
    table = []
    print(
        f"\nthe policy of round {number} of {run} behind each engine, "
        f"{iterations} rollouts a problem, random scores\n"
    )
    print(
        "engine | problems | rollouts per 1,000 tokens | "
        "distinct finished programs per 1,000 tokens | calls of the model | seconds in model | "
        "in executor | outside both, ms per rollout\n" + "---|" * 8
    )
    with Executor(workers=2, preload=()) as executor:
        for n in counts:
            questions = [p.question for p in generate(n, "test", seed=1, levels=[3, 4, 5, 6])]
            for cls in engines:
                timed, ran = Timed(policy), Timed(executor)
                engine = cls(questions, timed, ran)
                start = time.perf_counter()
                # A rollout of llm-reasoners may walk a finished path again, and one of treequest
                # is a single expansion: each gets the tokens that ours spends.
                if cls is Ours:
                    engine.iterate(iterations)
                    tokens = timed.tokens
                while (
                    timed.tokens < tokens
                    and engine.rollouts() < 20 * iterations * n
                    and cls is not Ours
                ):
                    engine.iterate()
                outside = time.perf_counter() - start - timed.seconds - ran.seconds
                table.append(
                    dict(
                        engine=cls.name,
                        problems=n,
                        rollouts=engine.rollouts(),
                        programs=engine.programs(),
                        tokens=timed.tokens,
                        calls=timed.calls,
                        model_seconds=round(timed.seconds, 3),
                        executor_seconds=round(ran.seconds, 3),
                        outside_seconds=round(outside, 4),
                    )
                )
                print(
                    f"{cls.name} | {n} | {1000 * engine.rollouts() / timed.tokens:.2f} | "
                    f"{1000 * engine.programs() / timed.tokens:.2f} | {timed.calls} | "
                    f"{timed.seconds:.2f} | {ran.seconds:.2f} | "
                    f"{1000 * outside / engine.rollouts():.2f}",
                    flush=True,
                )
    return dict(
        with_model=table,
        rollouts_per_problem=iterations,
        run=str(Path(run).name),
        policy_round=number,
    )


def profile():
    import cProfile
    import pstats

    policy = Stub(12)
    engine = Ours(["q"], policy, Runs(), 12)
    grow_fast(engine, 2000)
    gc.disable()
    profiler = cProfile.Profile()
    profiler.enable()
    grow_fast(engine, 22_000)
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(18)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", help="a run folder: the same tiny model behind each engine")
    parser.add_argument("--sizes", default="100,1000,10000,100000")
    parser.add_argument(
        "--seconds", type=float, default=5, help="CPU seconds for a measurement at most"
    )
    parser.add_argument("--rollouts", type=int, default=8)
    parser.add_argument("--problems", default="1,8,32")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--record", type=Path, help="JSON file to put the numbers into")
    args = parser.parse_args()
    print("load before:", load := os.getloadavg())
    if args.profile:
        profile()
        sys.exit()
    engines = installed()
    measured = (
        with_model(engines, args.run, args.rollouts, [int(n) for n in args.problems.split(",")])
        if args.run
        else growth(engines, [int(s) for s in args.sizes.split(",")], args.seconds)
    )
    print("load after:", os.getloadavg())
    if args.record:
        was = json.loads(args.record.read_text()) if args.record.exists() else {}
        versions = {e.package: version(e.package) for e in engines if e is not Ours}
        args.record.write_text(
            json.dumps(
                {
                    **was,
                    **measured,
                    "versions": versions,
                    "machine": machine(),
                    ("load_with_model" if args.run else "load_growth"): [
                        round(load[0], 2),
                        round(os.getloadavg()[0], 2),
                    ],
                },
                indent=1,
            )
            + "\n"
        )
