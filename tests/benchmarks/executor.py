"""How fast is the executor? Ratios from one run, because machines differ.

python tests/benchmarks/executor.py             programs a second, five ways
python tests/benchmarks/executor.py --long      100,000 programs: does speed or memory drift?
"""
import json, os, subprocess, sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))
from rstar_nb.executor import Executor

def program(i): return f'# Pens bought on each day\nfirst = {i}\nsecond = first * 3 + 1\n# Total\ntotal = sum([first, second, {i % 7}])\nanswer = total'
def sympy_program(i): return f'import sympy\nx = sympy.symbols("x")\n# Solve\nanswer = int(sympy.Integer({i}) + sympy.gcd({i}, 12)) + {i}'
def bare(src): g = {}; exec(src, g); return g['answer']

def rate(f, programs):
    t = time.perf_counter(); got = f(programs)
    return len(programs) / (time.perf_counter() - t), got

def memory(pid): return int(Path(f'/proc/{pid}/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 2**20

def five_ways(n=2000):
    programs, rows = [program(i) for i in range(n)], {}
    want = [bare(p) for p in programs]
    rows['exec in this process (unsafe)'] = rate(lambda ps: [bare(p) for p in ps], programs)[0]
    with ProcessPoolExecutor(2, mp_context=get_context('spawn')) as pool:
        list(pool.map(bare, programs[:20]))
        rows['reused pool of 2 (state leaks)'] = rate(lambda ps: list(pool.map(bare, ps, chunksize=10)), programs)[0]
    for name, preload, make in ('executor, plain', (), program), ('executor, sympy and numpy preloaded', ('sympy', 'numpy'), program), ('executor, programs that use sympy', ('sympy', 'numpy'), sympy_program):
        with Executor(preload=preload) as ex:
            mine = [make(i) for i in range(n)]; ex.run([make(-i) for i in range(1, 51)])
            rows[name], got = max((rate(ex.run, mine) for _ in range(3)), key=lambda r: r[0])
            assert all(r.ok for r in got) and (make is sympy_program or [r.answer for r in got] == want)
            print(f'{name}: start-up {ex.isolation.startup:.2f} s; {ex.isolation}')
            t = time.perf_counter(); [ex.run([make(10**6 + i)]) for i in range(100)]
            print(f'  one program a call: {(time.perf_counter() - t) * 10:.2f} ms')
    fresh = lambda ps: [subprocess.run([sys.executable, '-I', '-c', p], capture_output=True) for p in ps]
    rows['fresh python -I each, one at a time'] = rate(fresh, programs[:50])[0]
    rows['fresh python -I that imports sympy'] = rate(fresh, ['import sympy\n' + p for p in programs[:5]])[0]
    base = rows['executor, plain']
    print('\n| way | programs a second | ratio to the plain executor |\n|---|---|---|')
    for k, v in rows.items(): print(f'| {k} | {v:,.0f} | {v / base:.3g} |')
    return rows

def long(n=100_000, chunk=10_000, preload=()):
    with Executor(preload=preload) as ex:
        zygotes = [int(c) for w in ex._pool for c in Path(f'/proc/{w.proc.pid}/task/{w.proc.pid}/children').read_text().split()]
        print('| programs done | a second | host MB | zygotes MB |\n|---|---|---|---|')
        for a in range(0, n, chunk):
            r, got = rate(ex.run, [program(i) for i in range(a, a + chunk)])
            assert all(x.ok for x in got)
            print(f"| {a + chunk:,} | {r:,.0f} | {memory(os.getpid()):.0f} | {' '.join(f'{memory(z):.0f}' for z in zygotes)} |", flush=True)

if __name__ == '__main__':
    print('load before:', os.getloadavg())
    long() if '--long' in sys.argv else five_ways()
    print('load after:', os.getloadavg())
