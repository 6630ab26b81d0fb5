"""How fast is the executor, and does it stay so? Ratios from one run, because machines differ.

python tests/benchmarks/executor.py                   programs a second, several ways
python tests/benchmarks/executor.py --long            100,000 programs: do speed or memory drift?
python tests/benchmarks/executor.py --programs 500    fewer, for a first look (also with --long)

The first writes figures/executor-speed.json, the second figures/executor-long.json. Beside the
wall clock stands the CPU time of one program (host, zygotes and children together, by the kernel's
accounts): it says nearly the same on a machine that is busy with something else.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))
from rstar_nb.executor.pool import Executor
from rstar_nb.store import machine


def program(i):
    """A small program; each `i` makes another."""
    return (
        f"# Pens bought on each day\nfirst = {i}\nsecond = first * 3 + 1\n"
        f"# Total\ntotal = sum([first, second, {i % 7}])\nanswer = total"
    )


def sympy_program(i):
    """The same for a program that uses sympy."""
    return (
        'import sympy\nx = sympy.symbols("x")\n# Solve\n'
        f"answer = int(sympy.Integer({i}) + sympy.gcd({i}, 12)) + {i}"
    )


def bare(source):
    """What the program answers, run in this process."""
    names = {}
    exec(source, names)
    return names["answer"]


def bare_all(programs):
    return [bare(p) for p in programs]


def rate(run_all, programs):
    """Programs a second, and what `run_all` returned."""
    start = time.perf_counter()
    results = run_all(programs)
    return len(programs) / (time.perf_counter() - start), results


def zygotes(ex):
    """Process ids of the zygotes; `ex.pids` are those of the processes that watch them."""
    return [
        int(child)
        for pid in ex.pids
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ]


def memory(pid):
    """MB that a process holds in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def cpu(ex):
    """CPU seconds used by this process, the zygotes, and the children they have buried."""
    ticks = 0
    for pid in zygotes(ex):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += sum(map(int, fields[11:15]))
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def executor_speed(name, preload, make, n, repeats):
    """(way, programs a second, CPU ms a program) of the executor, the best of `repeats`."""
    expected = bare_all([program(i) for i in range(n)])
    with Executor(preload=preload) as ex:
        ex.run([make(-i) for i in range(1, 51)])
        before = cpu(ex)
        best = 0
        for k in range(repeats):
            programs = [make(k * n + i) for i in range(n)]
            per_second, results = rate(ex.run, programs)
            best = max(best, per_second)
            assert all(r.ok for r in results)
            if k == 0 and make is program:
                assert [r.answer for r in results] == expected
        ms = (cpu(ex) - before) / (n * repeats) * 1000
        singles = [make(-1000 - i) for i in range(min(n, 100))]
        single = rate(lambda programs: [ex.run([p]) for p in programs], singles)[0]
        print(
            f"{name}: start-up {ex.isolation.startup:.2f} s,"
            f" one program a call {1000 / single:.2f} ms; {ex.isolation}"
        )
    return name, best, ms


def fresh_python(programs):
    """A new interpreter for each program."""
    return [subprocess.run([sys.executable, "-I", "-c", p], capture_output=True) for p in programs]


def speed(n=2000, repeats=3):
    """Rows of (way, programs a second, CPU ms a program).

    In this process, in a reused pool, in the executor, in a fresh Python.
    """
    programs = [program(i) for i in range(n)]
    rows = [("exec in this process (unsafe)", rate(bare_all, programs)[0], None)]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(bare, programs[:20]))
        reused = rate(lambda ps: list(pool.map(bare, ps, chunksize=10)), programs)[0]
        rows.append(("reused pool of 2 (state leaks)", reused, None))
    both = ("sympy", "numpy")
    for name, preload, make in (
        ("executor, plain", (), program),
        ("executor, sympy and numpy preloaded", both, program),
        ("executor, programs that use sympy", both, sympy_program),
    ):
        rows.append(executor_speed(name, preload, make, n, repeats))
    importing = ["import sympy\n" + p for p in programs[:5]]
    rows.append(("fresh python -I each, one at a time", rate(fresh_python, programs[:50])[0], None))
    rows.append(("fresh python -I that imports sympy", rate(fresh_python, importing)[0], None))
    return rows


def show_speed(rows):
    """Print the table."""
    plain = next(per_second for name, per_second, _ in rows if name == "executor, plain")
    print("\n| way | programs a second | ratio to the plain executor | CPU ms a program |")
    print("|---|---|---|---|")
    for name, per_second, ms in rows:
        cpu_ms = f"{ms:.2f}" if ms else "-"
        print(f"| {name} | {per_second:,.0f} | {per_second / plain:.3g} | {cpu_ms} |")


def long(n=100_000, chunks=10, preload=()):
    """One row for each tenth of a long run.

    (programs done, programs a second, CPU ms a program, MB of this process, MB of each zygote)
    """
    rows = []
    size = n // chunks
    with Executor(preload=preload) as ex:
        ex.run([program(-i) for i in range(1, 51)])
        print("| programs done | a second | CPU ms each | host MB | zygotes MB |")
        print("|---|---|---|---|---|")
        for start in range(0, size * chunks, size):
            before = cpu(ex)
            programs = [program(i) for i in range(start, start + size)]
            per_second, results = rate(ex.run, programs)
            assert [r.answer for r in results] == bare_all(programs)
            del results, programs
            ms = (cpu(ex) - before) / size * 1000
            row = (
                start + size,
                per_second,
                ms,
                memory(os.getpid()),
                [memory(z) for z in zygotes(ex)],
            )
            rows.append(row)
            mb = " ".join(f"{m:.1f}" for m in row[4])
            print(
                f"| {row[0]:,} | {per_second:,.0f} | {ms:.2f} | {row[3]:.1f} | {mb} |", flush=True
            )
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--long", action="store_true", help="look for drift")
    parser.add_argument("--programs", type=int, help="how many")
    parser.add_argument("--out", type=Path, help="where to write the record")
    args = parser.parse_args()
    load_before = os.getloadavg()
    if args.long:
        rows = long(args.programs or 100_000)
    else:
        rows = speed(args.programs or 2000)
        show_speed(rows)
    load_after = os.getloadavg()
    record = dict(machine=machine(), load_before=load_before, load_after=load_after, rows=rows)
    out = args.out or ROOT / "figures" / f"executor-{'long' if args.long else 'speed'}.json"
    out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"load average before {load_before[0]:.1f}, after {load_after[0]:.1f}; written to {out}")


if __name__ == "__main__":
    main()
