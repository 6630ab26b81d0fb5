"""How fast is the executor, and does it stay so? Ratios from one run, because machines differ.

python tests/benchmarks/executor.py                   programs a second, several ways -> figures/executor-speed.json
python tests/benchmarks/executor.py --long            100,000 different programs: do speed or memory drift? -> figures/executor-long.json
python tests/benchmarks/executor.py --programs 500    fewer programs, for a first look (also with --long)

Beside the wall clock stands the CPU time of one program (host, zygotes and children together, by the kernel's accounts): it says
nearly the same on a machine that is busy with something else.
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
    return f"# Pens bought on each day\nfirst = {i}\nsecond = first * 3 + 1\n# Total\ntotal = sum([first, second, {i % 7}])\nanswer = total"


def sympy_program(i):
    return f'import sympy\nx = sympy.symbols("x")\n# Solve\nanswer = int(sympy.Integer({i}) + sympy.gcd({i}, 12)) + {i}'


def bare(src):
    g = {}
    exec(src, g)
    return g["answer"]


def rate(f, programs):
    """Programs a second, and what `f` returned."""
    start = time.perf_counter()
    got = f(programs)
    return len(programs) / (time.perf_counter() - start), got


def zygotes(ex):
    return [
        int(p)
        for w in ex._pool
        for p in Path(f"/proc/{w.proc.pid}/task/{w.proc.pid}/children").read_text().split()
    ]


def memory(pid):
    """MB in memory."""
    return (
        int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    )


def cpu(ex):
    """CPU seconds used so far by this process, the zygotes, and the children they have buried."""
    fields = [Path(f"/proc/{z}/stat").read_text().rsplit(")", 1)[1].split() for z in zygotes(ex)]
    return time.process_time() + sum(int(t) for f in fields for t in f[11:15]) / os.sysconf(
        "SC_CLK_TCK"
    )


def speed(n=2000, repeats=3):
    """Rows of (way, programs a second, CPU ms a program): in process, in a reused pool, in the executor, in a fresh Python."""
    programs, rows = [program(i) for i in range(n)], []
    want = [bare(p) for p in programs]
    rows.append(
        ("exec in this process (unsafe)", rate(lambda ps: [bare(p) for p in ps], programs)[0], None)
    )
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(bare, programs[:20]))
        rows.append(
            (
                "reused pool of 2 (state leaks)",
                rate(lambda ps: list(pool.map(bare, ps, chunksize=10)), programs)[0],
                None,
            )
        )
    for name, preload, make in (
        ("executor, plain", (), program),
        ("executor, sympy and numpy preloaded", ("sympy", "numpy"), program),
        ("executor, programs that use sympy", ("sympy", "numpy"), sympy_program),
    ):
        with Executor(preload=preload) as ex:
            ex.run([make(-i) for i in range(1, 51)])
            before, best = cpu(ex), 0
            for k in range(repeats):
                r, got = rate(ex.run, [make(k * n + i) for i in range(n)])
                best = max(best, r)
                assert all(x.ok for x in got) and (
                    make is sympy_program or k or [x.answer for x in got] == want
                )
            rows.append((name, best, (cpu(ex) - before) / (n * repeats) * 1000))
            print(
                f"{name}: start-up {ex.isolation.startup:.2f} s, one program a call {1000 / rate(lambda ps: [ex.run([p]) for p in ps], [make(-1000 - i) for i in range(min(n, 100))])[0]:.2f} ms; {ex.isolation}"
            )

    def fresh(ps):
        return [subprocess.run([sys.executable, "-I", "-c", p], capture_output=True) for p in ps]

    rows.append(("fresh python -I each, one at a time", rate(fresh, programs[:50])[0], None))
    rows.append(
        (
            "fresh python -I that imports sympy",
            rate(fresh, ["import sympy\n" + p for p in programs[:5]])[0],
            None,
        )
    )
    return rows


def show_speed(rows):
    base = dict((name, r) for name, r, _ in rows)["executor, plain"]
    print(
        "\n| way | programs a second | ratio to the plain executor | CPU ms a program |\n|---|---|---|---|"
    )
    for name, r, ms in rows:
        print(f"| {name} | {r:,.0f} | {r / base:.3g} | {f'{ms:.2f}' if ms else '-'} |")


def long(n=100_000, chunks=10, preload=()):
    """Rows of (programs done, programs a second, CPU ms a program, MB of this process, MB of each zygote), one for each tenth."""
    rows, size = [], n // chunks
    with Executor(preload=preload) as ex:
        ex.run([program(-i) for i in range(1, 51)])
        print(
            "| programs done | a second | CPU ms each | host MB | zygotes MB |\n|---|---|---|---|---|"
        )
        for a in range(0, size * chunks, size):
            before = cpu(ex)
            r, got = rate(ex.run, [program(i) for i in range(a, a + size)])
            assert [x.answer for x in got] == [bare(program(i)) for i in range(a, a + size)]
            del got
            rows.append(
                (
                    a + size,
                    r,
                    (cpu(ex) - before) / size * 1000,
                    memory(os.getpid()),
                    [memory(z) for z in zygotes(ex)],
                )
            )
            print(
                f"| {a + size:,} | {r:,.0f} | {rows[-1][2]:.2f} | {rows[-1][3]:.1f} | {' '.join(f'{m:.1f}' for m in rows[-1][4])} |",
                flush=True,
            )
    return rows


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--long", action="store_true")
    p.add_argument("--programs", type=int)
    p.add_argument("--out", type=Path)
    a = p.parse_args()
    load = os.getloadavg()
    if a.long:
        rows = long(a.programs or 100_000)
    else:
        rows = speed(a.programs or 2000)
        show_speed(rows)
    out = a.out or ROOT / "figures" / f"executor-{'long' if a.long else 'speed'}.json"
    out.write_text(
        json.dumps(
            dict(machine=machine(), load_before=load, load_after=os.getloadavg(), rows=rows),
            indent=1,
        )
        + "\n"
    )
    print(f"load average before {load[0]:.1f}, after {os.getloadavg()[0]:.1f}; written to {out}")
