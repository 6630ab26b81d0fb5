"""The executor: verdicts, isolation, determinism, and nothing left behind. Slow tables are in tests/benchmarks/executor.py."""
import json, os, select, shutil, signal, subprocess, sys, tempfile, threading
from pathlib import Path
import pytest
from hypothesis import given, settings, strategies as st, HealthCheck

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
pytestmark = pytest.mark.skipif(not sys.platform.startswith('linux'), reason='the sandbox layers tested here are those of Linux')
from rstar_nb import executor as X, zygote as Z
from rstar_nb.executor import Executor, Result, SandboxError, read_message
from rstar_nb.sandbox import LAYERS, PROBES, level, seccomp_filter
from tests.hostile.battery import BENIGN, BENIGN_SYMPY, HOSTILE
from tests.hostile.harness import battery, tree

@pytest.fixture(scope='module')
def ex():
    with Executor(timeout=.5, wall=2, memory=128) as ex: yield ex

@pytest.fixture(scope='module')
def plain():
    with Executor(preload=(), timeout=.5, wall=2) as ex: yield ex

@pytest.mark.parametrize('source, status, error', [
    ('answer = 1', 'ok', None),
    ('x = 1\nanswer = y', 'error', "NameError: name 'y' is not defined (line 2)"),
    ('def f(): return 1 / 0\n\nf()', 'error', 'ZeroDivisionError: division by zero (line 1)'),
    ('def f(:', 'error', 'SyntaxError: invalid syntax (line 1)'),
    ('import sys\nsys.exit("no")', 'error', 'SystemExit: no (line 2)'),
    ('x = [0] * 10 ** 10', 'memory', 'MemoryError (line 1)'),
    ('while True: print("x" * 1000)', 'output', 'more than 1048576 bytes of output'),
    ('import os\nos._exit(7)', 'killed', 'ended with code 7 before it gave a result'),
    ('import ctypes\nctypes.string_at(0)', 'killed', 'ended by SIGSEGV'),
    ('import time\ntime.sleep(99)', 'timeout', 'stopped: it waited too long'),
    ('import wave', 'error', "ModuleNotFoundError: No module named 'wave' (the sandbox has no files: only preloaded modules can be imported) (line 1)")])
def test_status_and_error(plain, source, status, error):
    r, = plain.run([source])
    assert (r.status, r.error) == (status, error)

def test_cpu_timeout_is_seen_from_outside(plain):
    r, = plain.run(['while True: pass'])
    assert r.status == 'timeout' and r.error.endswith('s of CPU') and r.seconds >= .5 and r.answer is None

@pytest.mark.parametrize('source, answer', [
    ('answer = 2 ** 200', 2 ** 200), ('answer = True', True), ('answer = None', None), ('x = 1', None), ('answer = 0.1 + 0.2', 0.1 + 0.2),
    ('answer = 10 ** 5000', {'type': 'int', 'text': hex(10 ** 5000)}),
    ('answer = float("-inf")', {'type': 'float', 'text': '-inf'}), ('answer = 1 - 2j', {'type': 'complex', 'real': 1.0, 'imag': -2.0}),
    ('answer = (1, [2])', {'type': 'tuple', 'items': [1, [2]]}), ('answer = {3, 1, 2}', {'type': 'set', 'items': [1, 2, 3]}),
    ('from fractions import Fraction as F\nanswer = F(-2, 6)', {'type': 'Fraction', 'text': '-1/3'}),
    ('from decimal import Decimal as D\nanswer = D("1.10")', {'type': 'Decimal', 'text': '1.10'}),
    ('answer = {"a": 1, "b": [2]}', {'a': 1, 'b': [2]}), ('answer = {1: 2}', {'type': 'dict', 'items': [[1, 2]]}),
    ('answer = {"type": "int"}', {'type': 'dict', 'items': [['type', 'int']]}), ('answer = "é\\n"', 'é\n'),
    ('import sympy\nanswer = sympy.Integer(33)', 33), ('import sympy\nanswer = sympy.Rational(1, 3)', {'type': 'Fraction', 'text': '1/3'}),
    ('import sympy\nanswer = sympy.sqrt(8)', {'type': 'sympy', 'text': '2*sqrt(2)'}),
    ('import numpy as np\nanswer = [np.int64(3), np.float64(.5), np.bool_(True)]', [3, .5, True]),
    ('import numpy as np\nanswer = np.array([[1, 2]])', {'type': 'ndarray', 'items': [[1, 2]]}),
    ('class A:\n    def __repr__(self): return "33"\nanswer = A()', {'type': 'A', 'text': '33'})])
def test_answer_is_plain_data(ex, source, answer):
    r, = ex.run([source])
    assert r.status == 'ok' and r.answer == answer and type(r.answer) is type(answer)

def test_order_is_kept_and_equal_programs_run_once(plain, monkeypatch):
    sent, send = [], X._Worker.send
    monkeypatch.setattr(X._Worker, 'send', lambda w, job, source: (sent.append(job), send(w, job, source)))
    programs = [f'answer = {i % 50}' for i in range(200)]
    assert [r.answer for r in plain.run(programs)] == [i % 50 for i in range(200)]
    assert sorted(sent) == sorted(set(programs))

def test_stdout_is_kept_and_cut(plain):
    a, b = plain.run(['print("é", 1)', 'print("x" * 20_000)'])
    assert a.stdout == 'é 1\n' and b.status == 'ok' and len(b.stdout) == 10_000

def test_a_large_program_and_an_empty_list(plain):
    big = 'x = 0\n' + 'x += 1\n' * 40_000 + 'answer = x'
    assert plain.run([]) == [] and [r.answer for r in plain.run([big, 'answer = 1', big + ' + 1'])] == [40_000, 1, 40_001]

REFERENCE = '''
def reference():
    import sys, json, io
    src, names, real = sys.stdin.read(), sys.modules['__main__'].__dict__, sys.stdout
    out = sys.stdout = io.StringIO()
    try: exec(compile(src, '<program>', 'exec'), names)
    except SystemExit: pass
    real.buffer.write(json.dumps([names.get('answer'), out.getvalue()]).encode())
reference()
'''
def test_benign_programs_do_what_plain_python_does(ex):
    programs = {**BENIGN, **BENIGN_SYMPY}
    assert len(programs) >= 30
    got = ex.run(list(programs.values()))
    for (name, src), r in zip(programs.items(), got):
        p = subprocess.run([sys.executable, '-c', REFERENCE], input=src.encode(), capture_output=True, env=dict(PYTHONHASHSEED='0', PATH=os.environ['PATH']))
        assert [r.answer, r.stdout] == json.loads(p.stdout) and r.ok, (name, r, p.stderr[-300:])

def test_same_result_in_any_order_and_in_any_executor(ex):
    programs = ['import random\nanswer = random.random()', 'import random\nanswer = random.Random().random()', 'import secrets\nanswer = secrets.randbelow(10**9)',
        'import numpy as np\nanswer = [np.random.rand(), np.random.default_rng().random()]', 'answer = hash("a")', 'answer = list({"a", "b", "c", "dd"})',
        'import os\nanswer = os.urandom(4).hex()', 'import uuid\nanswer = str(uuid.uuid4())', 'import time\nanswer = time.strftime("%H", time.localtime(0)) + time.tzname[0]',
        'import locale\nanswer = locale.getlocale()', 'import random\nrandom.shuffle(x := list(range(9)))\nanswer = x', 'import sys\nanswer = sys.getrecursionlimit()']
    view = lambda rs: [(r.status, r.answer, r.stdout, r.error) for r in rs]
    first = view(ex.run(programs))
    assert view(ex.run(programs[::-1]))[::-1] == first == view(ex.run(programs)) and {s for s, *_ in first} == {'ok'}
    with Executor(workers=1) as other: assert view(other.run(programs)) == first

def test_no_hostile_program_gets_through():
    isolation, records = battery()
    assert isolation.startswith('L3') and len(records) >= 120
    assert {r['name']: r['through'] for r in records if r['through']} == {}
    by = {r['name']: r['status'] for r in records}
    late = {n for n, s in by.items() if n.startswith('time: ') and s not in ('timeout', 'memory')}
    assert late <= {'time: tower of powers', 'time: huge power', 'time: decimal with a million digits'} or not late, {n: by[n] for n in late}
    assert {by[n] for n in by if n.startswith('memory: ')} <= {'memory', 'timeout', 'killed', 'error'}

def test_the_battery_can_see_a_breach():
    names = ['files: read passwd', 'files: write in tmp', 'files: rmtree', 'network: tcp', 'network: udp', 'process: fork', 'process: subprocess', 'files: import from a folder']
    isolation, records = battery({n: HOSTILE[n] for n in names}, without=['namespaces', 'landlock', 'seccomp', 'limits'])
    assert [r['name'] for r in records if not r['through']] == [] and 'read your files' in isolation

def as_user(*cmd):
    "The command for an ordinary user, or None where that cannot be arranged."
    if os.getuid(): return list(cmd)
    script = [str(ROOT / 'tests/hostile/as_user.sh')]
    return script + list(cmd) if subprocess.run(script + [sys.executable, '-c', ''], capture_output=True).returncode == 0 else None

def test_an_ordinary_user_is_as_safe():
    cmd = as_user(sys.executable, str(ROOT / 'tests/hostile/harness.py'), '--only', 'process,files,network,looking')
    if cmd is None: pytest.skip('no way to become an ordinary user here')
    p = subprocess.run(cmd, capture_output=True, text=True); got = json.loads(p.stdout.splitlines()[-1])
    assert got['user'] == 'user' and got['through'] == 0 and got['programs'] > 70 and got['isolation'].startswith('L'), got

def test_a_weak_sandbox_is_refused_by_name():
    weak = dict(workers=1, preload=(), without=['namespaces', 'landlock', 'seccomp'])
    with pytest.raises(SandboxError) as e: Executor(**weak)
    for word in 'L1', 'seccomp', 'read your files', 'allow-weak-sandbox': assert word in str(e.value)
    with Executor(**weak, allow_weak=True) as ex:
        assert ex.isolation.level == 1 and 'a program can use the network' in str(ex.isolation) and ex.run(['answer = 1'])[0].answer == 1

def test_each_level_needs_its_probes():
    denied = {p: 'denied' for p in PROBES}
    assert level(denied) == 3
    for p, (_, n, _) in PROBES.items(): assert level({**denied, p: ''}) == n - 1

def test_windows_is_told_about_wsl(monkeypatch):
    monkeypatch.setattr(X.os, 'name', 'nt')
    with pytest.raises(SandboxError, match='WSL'): Executor()

def test_seccomp_denies_by_default_on_both_machines():
    for m in 'x86_64', 'aarch64':
        f = seccomp_filter(m)
        assert f.filter[f.len - 1].k == 0x00050001 and sum(f.filter[i].k == 0x7FFF0000 for i in range(f.len)) > 30
    with pytest.raises(OSError): seccomp_filter('mips')

@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.builds(lambda d: json.dumps(d).encode(), st.dictionaries(st.sampled_from(['status', 'answer', 'stdout', 'error', 'x']),
    st.none() | st.integers() | st.text(max_size=5) | st.sampled_from(['ok', 'error']) | st.lists(st.integers(), max_size=3), max_size=5)), st.integers(0, 3), st.integers(0, 255))
def test_no_message_breaks_the_host(data, verdict, status):
    assert read_message(data, verdict, status, .1, 2.).status in ('ok', 'error', 'memory', 'output', 'killed', 'timeout')

@pytest.mark.parametrize('change', [dict(status='fine'), dict(status='timeout'), dict(status=1), dict(stdout=1), dict(error=2), dict(reward=1)])
def test_a_message_with_a_wrong_field_is_no_result(change):
    message = dict(status='ok', answer=1, stdout='', error=None)
    assert read_message(json.dumps(message).encode(), Z.DONE, 0, .1, 2.).ok
    assert read_message(json.dumps({**message, **change}).encode(), Z.DONE, 0, .1, 2.) == Result('killed', None, '', 'it sent a broken result', .1)

names = st.sampled_from(['x', 'y', 'answer', 'f', 'print', 'len', 'range', 'os', 'sys', 'exit', 'open', '__builtins__', '__import__'])
atoms = names | st.integers(-10, 10 ** 6).map(str) | st.sampled_from(['[]', '{}', '""', 'None', '1e308', '(1,)', 'b"x"', '...'])
exprs = st.recursive(atoms, lambda e: st.tuples(e, st.sampled_from('+ - * / // % ** < == and or in is .'.split()), e).map(' '.join) | e.map(lambda a: f'({a})') | e.map(lambda a: f'[{a} for x in range(9)]')
    | st.tuples(e, e).map(lambda a: f'{a[0]}({a[1]})') | st.tuples(e, e).map(lambda a: f'{a[0]}[{a[1]}]') | e.map(lambda a: f'(lambda x: {a})'), max_leaves=6)
lines = st.tuples(names, exprs).map(lambda a: f'{a[0]} = {a[1]}') | exprs | exprs.map(lambda a: f'while {a}: x = 1') | exprs.map(lambda a: f'try: {a}\nexcept BaseException: pass') \
    | exprs.map(lambda a: f'for y in {a}: print(y)') | st.sampled_from(['import os, sys', 'raise x', 'del answer', 'def f(x): return f(x)', 'from math import *', 'import os\nos._exit(1)'])
programs = st.lists(lines, min_size=1, max_size=5).map('\n'.join)
@st.composite
def mutated(draw):
    s = list(draw(st.sampled_from([p for p in HOSTILE.values() if 'sleep' not in p and 'kill' not in p])))
    for _ in range(draw(st.integers(1, 6))):
        i = draw(st.integers(0, len(s)))
        if draw(st.booleans()) and i < len(s): del s[i:i + draw(st.integers(1, 8))]
        else: s.insert(i, draw(st.sampled_from(list('()[]{}:=\n \0\ud800') + ['answer', 'while True: pass'])))
    return ''.join(s)

@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(programs | mutated(), min_size=10, max_size=20, unique=True))
def test_random_programs_never_take_the_sandbox_down(tiny, batch):
    pids = [w.proc.pid for w in tiny._pool]
    rs = tiny.run(batch)
    assert [w.proc.pid for w in tiny._pool] == pids and len(rs) == len(batch)
    assert all(r.status in ('ok', 'error', 'timeout', 'memory', 'output', 'killed') for r in rs)
    assert tiny.run(['answer = sum(range(10))'])[0].answer == 45

@pytest.fixture(scope='module')
def tiny():
    with Executor(preload=(), timeout=.1, wall=.3, memory=64) as ex: yield ex

HOST = '''
import sys; sys.path.insert(0, %r)
from rstar_nb.executor import Executor
ex = Executor(preload=(), timeout=60)
print("ready", flush=True)
%s
'''
def host(body, before=lambda: None):
    "A process that uses the executor, once its zygotes are up."
    p = subprocess.Popen([sys.executable, '-c', HOST % (str(ROOT), body)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True)
    assert p.stdout.readline() == 'ready\n'
    return p

def gone(pids, seconds=30):
    "Wait until all these processes have ended."
    for fd in pids:
        if fd is None: continue
        ready = select.select([fd], [], [], seconds)[0]; os.close(fd)
        if not ready: return False
    return True

def pidfd(pid):
    try: return os.pidfd_open(pid)
    except ProcessLookupError: return None

def children_running(p, n):
    "The processes below `p` once there are at least `n` of them."
    while len(t := tree(p.pid)) < n and p.poll() is None: pass
    return t

LOOPS = 'ex.run([f"while True: x = {i}" for i in range(4)])'
@pytest.mark.parametrize('how, body', [(signal.SIGKILL, LOOPS), (signal.SIGINT, LOOPS), (signal.SIGTERM, LOOPS), (None, 'raise RuntimeError'),
    (signal.SIGKILL, 'import os\nos.fork() or os.fork()\n' + LOOPS)])
def test_nothing_survives_the_caller(how, body):
    if not hasattr(os, 'pidfd_open'): pytest.skip('needs pidfd')
    before = sorted(os.listdir(tempfile.gettempdir()))
    p = host(body)
    below = children_running(p, 6) if how else tree(p.pid)
    z = [q for q in below if 'rstar_nb.zygote' in Path(f'/proc/{q}/cmdline').read_text()] if 'fork' in body else below
    fds = [pidfd(q) for q in z]
    if how: os.kill(p.pid, how)
    p.wait()
    try: assert gone(fds)
    finally:
        try: os.killpg(p.pid, signal.SIGKILL)
        except ProcessLookupError: pass
    ours = lambda names: [n for n in names if 'rstar' in n and 'battery' not in n]
    assert ours(sorted(os.listdir(tempfile.gettempdir()))) == ours(before)

def test_an_exception_in_the_caller_stops_what_runs_and_the_next_call_works():
    with Executor(preload=(), workers=1, timeout=60) as ex:
        fds = [pidfd(q) for q in tree(ex._pool[0].proc.pid)]
        signal.signal(signal.SIGALRM, lambda *a: (_ for _ in ()).throw(KeyboardInterrupt()))
        signal.setitimer(signal.ITIMER_REAL, .2)
        with pytest.raises(KeyboardInterrupt): ex.run(['while True: pass'])
        assert gone(fds) and ex.run(['answer = 1'])[0].answer == 1

def test_a_dead_zygote_costs_one_program():
    with Executor(preload=(), workers=1, timeout=60) as ex:
        pid = ex._pool[0].proc.pid
        t = threading.Timer(.2, lambda: os.kill(pid, signal.SIGKILL)); t.start()
        r = ex.run(['while True: pass', 'answer = 2', 'answer = 3'])
        assert [x.status for x in r] == ['killed', 'ok', 'ok'] and ex._pool[0].proc.pid != pid

def test_it_works_from_threads_and_outlives_the_thread_that_made_it():
    made = []
    t = threading.Thread(target=lambda: made.append(Executor(preload=(), workers=1))); t.start(); t.join()
    with made[0] as ex: assert ex.run(['answer = 1'])[0].answer == 1
    with Executor(preload=()) as ex:
        got = [None] * 4
        def work(i): got[i] = [r.answer for r in ex.run([f'answer = {i} * 1000 + {j}' for j in range(20)])]
        ts = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        [t.start() for t in ts]; [t.join() for t in ts]
        assert got == [[i * 1000 + j for j in range(20)] for i in range(4)]

def test_no_descriptor_is_left_open():
    count = lambda: len(os.listdir('/proc/self/fd'))
    with Executor(preload=()) as ex: ex.run(['answer = 1'])
    before = count()
    for _ in range(3):
        with Executor(preload=()) as ex: ex.run([f'answer = {i}' for i in range(20)])
    assert count() == before

def test_importing_it_does_not_import_torch():
    code = "import sys; import rstar_nb.executor, rstar_nb.zygote; print(sorted({'torch', 'numpy', 'sympy', 'fastcore'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True).stdout == '[]\n'
