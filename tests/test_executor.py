"""The executor: verdicts, isolation, determinism, and nothing left behind.

Slow tables are in tests/benchmarks/executor.py.
"""

import ast
import ctypes
import importlib.util
import json
import math
import os
import platform
import resource
import select
import signal
import subprocess
import sys
import tempfile
import threading
import types
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the sandbox layers tested here are those of Linux"
)
from rstar_nb.executor import namespaces, pool, probes, process, sandbox, start, zygote
from rstar_nb.executor.child import OUT
from rstar_nb.executor.plain import no_addresses
from rstar_nb.executor.pool import Executor
from rstar_nb.executor.probes import FIXES, PROBES, Isolation, attack, isolation_level
from rstar_nb.executor.process import cpu_of, memory_of
from rstar_nb.executor.result import Result, read_message
from rstar_nb.executor.sandbox import LAYERS, Sandbox
from rstar_nb.executor.seccomp import ALLOWED, seccomp_filter
from rstar_nb.executor.worker import SandboxError, Worker
from rstar_nb.executor.zygote import DONE
from tests.hostile.battery import BENIGN, BENIGN_SYMPY, HOSTILE
from tests.hostile.harness import battery, tree


@pytest.fixture(scope="module")
def ex():
    with Executor(timeout=0.5, wall=2, memory=128) as ex:
        yield ex


@pytest.fixture(scope="module")
def plain():
    with Executor(preload=(), timeout=0.5, wall=2) as ex:
        yield ex


@pytest.mark.parametrize(
    "source, status, error",
    [
        ("answer = 1", "ok", None),
        ("x = 1\nanswer = y", "error", "NameError: name 'y' is not defined (line 2)"),
        ("def f(): return 1 / 0\n\nf()", "error", "ZeroDivisionError: division by zero (line 1)"),
        ("def f(:", "error", "SyntaxError: invalid syntax (line 1)"),
        ('import sys\nsys.exit("no")', "error", "SystemExit: no (line 2)"),
        ("x = [0] * 10 ** 10", "memory", "MemoryError (line 1)"),
        ('while True: print("x" * 1000)', "output", "more than 1048576 bytes of output"),
        ("import os\nos._exit(7)", "killed", "ended with code 7 before it gave a result"),
        ("import ctypes\nctypes.string_at(0)", "killed", "ended by SIGSEGV"),
        ("import time\ntime.sleep(99)", "timeout", "stopped: it waited too long"),
        (
            "import wave",
            "error",
            "ModuleNotFoundError: No module named 'wave' (the sandbox has no files:"
            " only preloaded modules can be imported) (line 1)",
        ),
        (
            "answer = len(str(10 ** 100_000))",
            "error",
            "ValueError: an integer of more than 100,000 digits is not written out or read in here"
            " (line 1)",
        ),
        (
            'x = 1\nanswer = int("7" * 100_001)',
            "error",
            "ValueError: an integer of more than 100,000 digits is not written out or read in here"
            " (line 2)",
        ),
    ],
)
def test_status_and_error(plain, source, status, error):
    (r,) = plain.run([source])
    assert (r.status, r.error) == (status, error)


def test_cpu_timeout_is_seen_from_outside(plain):
    (r,) = plain.run(["while True: pass"])
    assert r.status == "timeout"
    assert r.error.endswith("s of CPU")
    assert r.seconds >= 0.5
    assert r.answer is None


@pytest.mark.parametrize(
    "source, answer",
    [
        ("answer = sum(map(int, str(2 ** 20_000)))", 26995),
        ("answer = len(str(3 ** 200_000))", 95425),
        ('answer = f"{7 ** 9_000:d}"[:5]', "76271"),
        ("answer = str(2 ** 20_000)[-4:]", "9376"),
        ('answer = int("7" * 20_000) % 1_000_003', 73721),
        ("print(2 ** 20_000)\nanswer = 1", 1),
        ("import math\nanswer = str(math.factorial(5_000)).count('0')", 2782),
    ],
)
def test_long_integers_are_text_like_any_other(plain, source, answer):
    """CPython stops at 4,300 digits, which sums of digits pass."""
    (r,) = plain.run([source])
    assert (r.status, r.answer, r.error) == ("ok", answer, None)


def test_a_long_rational_number_is_bounded(ex):
    rational = "import sympy\nanswer = sympy.Rational({}, {})"
    long, endless = ex.run(
        [rational.format("2 ** 20_000", "3 ** 20_000"), rational.format("1", "2 ** 1_100_000")]
    )
    assert long.answer == {"type": "Fraction", "text": f"{2**20_000:#x}/{3**20_000:#x}"}
    assert (endless.status, endless.error) == (
        "output",
        "OutputLimit: the answer is a fraction of more than a million bits",
    )


@pytest.mark.parametrize(
    "source",
    [
        "from decimal import Decimal\nanswer = Decimal(3 ** 30_000)",
        "import sympy\nanswer = sympy.sqrt(2) * 3 ** 30_000",
    ],
)
def test_no_number_loses_its_last_digits(ex, source):
    r, whole = ex.run([source, source.replace("30_000", "2_500")])
    assert whole.status == "ok"
    assert (r.status, r.error) == (
        "output",
        "OutputLimit: the answer is a formula or a number of more than 10000 characters",
    )


@pytest.mark.parametrize(
    "source, answer",
    [
        ("answer = 2 ** 200", 2**200),
        ("answer = True", True),
        ("answer = None", None),
        ("x = 1", None),
        ("answer = 0.1 + 0.2", 0.1 + 0.2),
        ("answer = 10 ** 5000", {"type": "int", "text": hex(10**5000)}),
        ('answer = float("-inf")', {"type": "float", "text": "-inf"}),
        ("answer = 1 - 2j", {"type": "complex", "real": 1.0, "imag": -2.0}),
        ("answer = (1, [2])", {"type": "tuple", "items": [1, [2]]}),
        ("answer = {3, 1, 2}", {"type": "set", "items": [1, 2, 3]}),
        (
            "from fractions import Fraction as F\nanswer = F(-2, 6)",
            {"type": "Fraction", "text": "-1/3"},
        ),
        (
            'from decimal import Decimal as D\nanswer = D("1.10")',
            {"type": "Decimal", "text": "1.10"},
        ),
        ('answer = {"a": 1, "b": [2]}', {"a": 1, "b": [2]}),
        ("answer = {1: 2}", {"type": "dict", "items": [[1, 2]]}),
        ('answer = {"type": "int"}', {"type": "dict", "items": [["type", "int"]]}),
        ('answer = "é\\n"', "é\n"),
        ("import sympy\nanswer = sympy.Integer(33)", 33),
        ("import sympy\nanswer = sympy.Float('0.25', 50)", 0.25),
        (
            "import sympy\nanswer = sympy.Float('1e-400')",
            {"type": "Decimal", "text": "1.0e-400"},
        ),
        (
            "import sympy\nanswer = -sympy.Float('1e400')",
            {"type": "Decimal", "text": "-1.0e+400"},
        ),
        ("import sympy\nanswer = sympy.Float(0)", 0.0),
        ("from mpmath import mp\nmp.dps = 30\nanswer = mp.mpf(1) / 4", 0.25),
        ("import mpmath\nanswer = mpmath.pi", math.pi),
        ("import mpmath\nanswer = mpmath.mpf('1e-400')", {"type": "Decimal", "text": "1.0e-400"}),
        ("import mpmath\nanswer = mpmath.inf", {"type": "float", "text": "inf"}),
        ("import mpmath\nanswer = mpmath.nan", {"type": "float", "text": "nan"}),
        (
            "import mpmath\nanswer = mpmath.mpc(1, -2)",
            {"type": "complex", "real": 1.0, "imag": -2.0},
        ),
        (
            "import datetime\nanswer = datetime.date(2024, 5, 1)",
            {"type": "date", "text": "2024-05-01"},
        ),
        ("from datetime import time\nanswer = time(2, 30)", {"type": "time", "text": "02:30"}),
        (
            "from datetime import time\nanswer = time(2, 30, 5)",
            {"type": "time", "text": "02:30:05"},
        ),
        ("from collections import deque\nanswer = deque([1, 2])", [1, 2]),
        ("answer = {1: 2, 3: 4}.values()", [2, 4]),
        ("answer = {1: 2, 3: 4}.keys()", [1, 3]),
        ("import sympy\nanswer = sympy.Rational(1, 3)", {"type": "Fraction", "text": "1/3"}),
        ("import sympy\nanswer = sympy.sqrt(8)", {"type": "sympy", "text": "2*sqrt(2)"}),
        (
            "import numpy as np\nanswer = [np.int64(3), np.float64(.5), np.bool_(True)]",
            [3, 0.5, True],
        ),
        ("import numpy as np\nanswer = np.array([[1, 2]])", {"type": "ndarray", "items": [[1, 2]]}),
        (
            'class A:\n    def __repr__(self): return "33"\nanswer = A()',
            {"type": "A", "text": "33"},
        ),
    ],
)
def test_answer_is_plain_data(ex, source, answer):
    (r,) = ex.run([source])
    assert r.status == "ok" and r.answer == answer and type(r.answer) is type(answer)


def test_order_is_kept_and_equal_programs_run_once(plain, monkeypatch):
    sent = []
    send = Worker.send

    def note_and_send(worker, job, source):
        sent.append(job)
        send(worker, job, source)

    monkeypatch.setattr(Worker, "send", note_and_send)
    programs = [f"answer = {i % 50}" for i in range(200)]
    assert [r.answer for r in plain.run(programs)] == [i % 50 for i in range(200)]
    assert sorted(sent) == sorted(set(programs))


def test_stdout_is_kept_and_cut(plain):
    a, b = plain.run(['print("é", 1)', 'print("x" * 20_000)'])
    assert a.stdout == "é 1\n" and b.status == "ok" and len(b.stdout) == 10_000


def test_a_large_program_and_an_empty_list(plain):
    big = "x = 0\n" + "x += 1\n" * 40_000 + "answer = x"
    assert plain.run([]) == []
    results = plain.run([big, "answer = 1", big + " + 1"])
    assert [r.answer for r in results] == [40_000, 1, 40_001]


REFERENCE = """
import io, json, os, sys
def reference():
    programs, names = json.load(sys.stdin), sys.modules['__main__'].__dict__
    for src in programs:
        r, w = os.pipe()
        if os.fork() == 0:
            out = sys.stdout = io.StringIO()
            try: exec(compile(src, '<program>', 'exec'), names)
            except SystemExit: pass
            os.write(w, json.dumps([names.get('answer'), out.getvalue()]).encode())
            os._exit(0)
        os.close(w)
        with os.fdopen(r) as pipe: print(pipe.read() or 'null')
        os.wait()
reference()
"""


def in_plain_python(programs, imports=""):
    """[answer, stdout] of each program, in a fork of a fresh interpreter that has run `imports`."""
    done = subprocess.run(
        [sys.executable, "-c", imports + REFERENCE],
        input=json.dumps(programs).encode(),
        capture_output=True,
        env=dict(PYTHONHASHSEED="0", PATH=os.environ["PATH"]),
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr[-300:]


@pytest.mark.parametrize(
    "programs, imports", [(BENIGN, ""), (BENIGN_SYMPY, "import sympy")], ids=["plain", "sympy"]
)
def test_benign_programs_do_what_plain_python_does(ex, programs, imports):
    assert len(BENIGN) + len(BENIGN_SYMPY) >= 30
    sources = list(programs.values())
    expected, errors = in_plain_python(sources, imports)
    for name, r, wanted in zip(programs, ex.run(sources), expected, strict=True):
        assert [r.answer, r.stdout] == wanted and r.ok, (name, r, errors)


def test_same_result_in_any_order_and_in_any_executor(ex):
    programs = [
        "import random\nanswer = random.random()",
        "import random\nanswer = random.Random().random()",
        "import secrets\nanswer = secrets.randbelow(10**9)",
        "import numpy as np\nanswer = [np.random.rand(), np.random.default_rng().random()]",
        'answer = hash("a")',
        'answer = list({"a", "b", "c", "dd"})',
        "import os\nanswer = os.urandom(4).hex()",
        "import uuid\nanswer = str(uuid.uuid4())",
        'import time\nanswer = time.strftime("%H", time.localtime(0)) + time.tzname[0]',
        "import locale\nanswer = locale.getlocale()",
        "import random\nrandom.shuffle(x := list(range(9)))\nanswer = x",
        "import sys\nanswer = sys.getrecursionlimit()",
    ]

    def view(results):
        return [(r.status, r.answer, r.stdout, r.error) for r in results]

    first = view(ex.run(programs))
    assert {status for status, *_ in first} == {"ok"}
    assert view(ex.run(programs[::-1]))[::-1] == first
    assert view(ex.run(programs)) == first
    with Executor(workers=1) as other:
        assert view(other.run(programs)) == first


def test_a_child_has_nothing_but_its_program(plain):
    r = plain.run(
        [
            "import os\nanswer = [dict(os.environ), os.getcwd()]",
            """import os
answer = []
for fd in range(300):
    try: os.lseek(fd, 0, 1); answer.append(fd)
    except OSError as e: answer += [fd] * (e.errno == 29)    # a pipe; 9 is a closed one""",
            "import sys\nanswer = [sys.argv, sys.path]",
            'answer = sorted(n for n in globals() if not n.startswith("__"))',
        ]
    )
    assert [x.answer for x in r] == [[{}, "/"], [0, 1, 2, OUT], [["program"], []], []]


def test_limits_are_set_and_cannot_be_raised():
    source = """import resource
answer = {}
for n in ('AS', 'CPU', 'NPROC', 'FSIZE', 'NOFILE', 'STACK', 'CORE'):
    which = getattr(resource, 'RLIMIT_' + n); soft, hard = resource.getrlimit(which)
    try: resource.setrlimit(which, (hard + 1, hard + 1)); raised = True
    except (ValueError, OSError): raised = False
    answer[n] = [soft == hard, hard, raised]"""
    with Executor(
        workers=1, preload=(), timeout=3, memory=100, without=["seccomp"], allow_weak=True
    ) as ex:
        limits = ex.run([source])[0].answer
    assert limits.pop("AS")[1] > 100 << 20
    assert limits == {
        "CPU": [True, 5, False],
        "NPROC": [True, 0, False],
        "FSIZE": [True, 0, False],
        "NOFILE": [True, 16, False],
        "STACK": [True, 8 << 20, False],
        "CORE": [True, 0, False],
    }


def proc_status(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def test_the_kernel_confirms_the_layers(plain):
    """Of a child that runs, /proc says: filtered, no new privileges, no capabilities, nobody."""
    with Executor(workers=1, preload=(), timeout=60) as ex:
        t = threading.Thread(target=lambda: ex.run(["while True: pass"]))
        t.start()
        try:
            filtered = []
            while not filtered:
                statuses = [proc_status(p) for p in tree(ex._pool[0].proc.pid)]
                filtered = [x for x in statuses if x["Seccomp"] == "2"]
        finally:
            os.kill(ex._pool[0].proc.pid, signal.SIGKILL)
            t.join()
    child = filtered[0]
    assert child["NoNewPrivs"] == "1"
    assert int(child["CapEff"], 16) == int(child["CapPrm"], 16) == 0
    if ex.isolation.layers["uid"] == "on":
        assert set(child["Uid"].split()) == {"65534"}
    if ex.isolation.layers["namespaces"] == "on":
        assert len(child["NSpid"].split()) == 2


def test_the_zygote_never_holds_a_program(plain):
    """Its whole memory is searched for the text of a program that it has run."""
    with Executor(workers=1, preload=()) as ex:
        mark = "mark" + os.urandom(8).hex()
        assert ex.run([f'# {mark}\nx = "{mark[::-1]}"\nanswer = x[::-1][:4]'])[0].answer == "mark"
        zygote_pid = tree(ex._pool[0].proc.pid)[0]
        try:
            memory = open(f"/proc/{zygote_pid}/mem", "rb", 0)
        except OSError:
            pytest.skip("may not look into another process here")
        seen = set()
        for line in open(f"/proc/{zygote_pid}/maps"):
            a, b = (int(x, 16) for x in line.split()[0].split("-"))
            try:
                memory.seek(a)
                data = memory.read(b - a)
            except (OSError, ValueError, OverflowError):
                continue
            seen |= {m for m in (mark, mark[::-1], "Count something") if m.encode() in data}
    assert seen == {"Count something"}  # that one is the rehearsal's: the search does see


DAEMON = """import os, time
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0: time.sleep(600)
        os._exit(0)
"""


@pytest.mark.parametrize(
    "without",
    [["seccomp", "limits"], ["seccomp", "limits", "namespaces", "landlock"]],
    ids=["process namespace", "no namespace"],
)
@pytest.mark.parametrize(
    "end",
    [
        "answer = 1",
        "while True: pass",
        "time.sleep(600)",
        "os._exit(3)",
        "os.closerange(0, 100)\nos.kill(os.getpid(), 9)",
    ],
)
def test_the_whole_tree_of_a_child_is_gone(end, without):
    """Where processes can be started at all: daemons that left the group end with their program."""
    with Executor(
        workers=1, preload=(), timeout=0.2, wall=0.5, without=without, allow_weak=True
    ) as ex:
        host = ex._pool[0].proc.pid
        before = set(tree(host))
        ex.run([DAEMON + end])
        assert ex.run(["answer = 2"])[0].answer == 2
        assert ex._pool[0].proc.pid == host
        # The last child, and the one that waits for the next program; three daemons would be more.
        assert len(set(tree(host)) - before) <= 2


def test_seconds_are_cpu_time_from_outside(plain):
    busy, lazy, liar = plain.run(
        [
            "x = 0\nfor i in range(10 ** 6): x += i",
            "import time\ntime.sleep(.5)",
            "import time\ntime.process_time = time.thread_time = lambda: 0\n"
            "x = sum(range(10 ** 6)) + sum(range(10 ** 6))",
        ]
    )
    assert busy.ok and lazy.ok and liar.ok
    assert lazy.seconds < busy.seconds
    assert lazy.seconds < 0.3
    assert liar.seconds > 0


def test_printed_addresses_are_the_same_in_every_run(plain):
    source = """class A: pass
a = A()
print(a, a.__init__, f"jump at 0x10")
answer = [str(x for x in "a"), a, "see 0x7f00000000 at 0x7fff"]"""
    (a,) = plain.run([source])
    with Executor(workers=1, preload=()) as other:
        (b,) = other.run([source])
    assert (a.stdout, a.answer) == (b.stdout, b.answer)
    assert a.stdout.startswith("<__main__.A object at 0x0>")
    assert "jump at 0x10" in a.stdout
    assert a.answer == [
        "<generator object <genexpr> at 0x0>",
        {"type": "A", "text": "<__main__.A object at 0x0>"},
        "see 0x7f00000000 at 0x7fff",
    ]
    assert (
        no_addresses("<f at 0x7fff12345678>, at 0x7fff12345678") == "<f at 0x0>, at 0x7fff12345678"
    )


def test_no_hostile_program_gets_through():
    isolation, records = battery()
    assert isolation.startswith("L3") and len(records) >= 120
    assert {r["name"]: r["through"] for r in records if r["through"]} == {}
    statuses = {r["name"]: r["status"] for r in records}
    late = {
        name: status
        for name, status in statuses.items()
        if name.startswith("time: ") and status not in ("timeout", "memory")
    }
    assert set(late) <= {
        "time: tower of powers",
        "time: huge power",
        "time: decimal with a million digits",
    }, late
    hungry = {status for name, status in statuses.items() if name.startswith("memory: ")}
    assert hungry <= {"memory", "timeout", "killed", "error"}


def test_the_battery_can_see_a_breach():
    names = [
        "files: read passwd",
        "files: write in tmp",
        "files: rmtree",
        "network: tcp",
        "network: udp",
        "process: fork",
        "process: subprocess",
        "files: import from a folder",
    ]
    isolation, records = battery(
        {n: HOSTILE[n] for n in names}, without=["namespaces", "landlock", "seccomp", "limits"]
    )
    assert [r["name"] for r in records if not r["through"]] == []
    assert "read your files" in isolation


def as_user(*cmd):
    """The command for an ordinary user, or None where that cannot be arranged."""
    if os.getuid():
        return list(cmd)
    script = [str(ROOT / "tests/hostile/as_user.sh")]
    tried = subprocess.run(script + [sys.executable, "-c", ""], capture_output=True)
    return script + list(cmd) if tried.returncode == 0 else None


def test_an_ordinary_user_is_as_safe():
    cmd = as_user(
        sys.executable,
        str(ROOT / "tests/hostile/harness.py"),
        "--only",
        "process,files,network,looking",
    )
    if cmd is None:
        pytest.skip("no way to become an ordinary user here")
    p = subprocess.run(cmd, capture_output=True, text=True)
    summary = json.loads(p.stdout.splitlines()[-1])
    assert summary["user"] == "user", summary
    assert summary["through"] == 0, summary
    assert summary["programs"] > 70
    assert summary["isolation"].startswith("L")


def test_a_weak_sandbox_is_refused_by_name():
    weak = dict(workers=1, preload=(), without=["namespaces", "landlock", "seccomp"])
    with pytest.raises(SandboxError) as e:
        Executor(**weak)
    for word in "L1", "seccomp", "read your files", "allow-weak-sandbox":
        assert word in str(e.value)
    with Executor(**weak, allow_weak=True) as ex:
        assert ex.isolation.level == 1
        assert "a program can use the network" in str(ex.isolation)
        assert ex.run(["answer = 1"])[0].answer == 1


def test_each_level_needs_its_probes():
    denied = {p: "denied" for p in PROBES}
    assert isolation_level(denied) == 3
    for name, probe in PROBES.items():
        assert isolation_level({**denied, name: ""}) == probe.level - 1


def test_windows_is_told_about_wsl(monkeypatch):
    monkeypatch.setattr(os, "name", "nt")
    with pytest.raises(SandboxError, match="WSL"):
        Executor()


def bpf(f, nr, arch):
    """What the filter says to a call: the kernel's machine, as far as the filter uses it."""
    at, a = 0, 0
    while True:
        i = f.filter[at]
        at += 1
        if i.code == 0x20:
            a = {0: nr, 4: arch}[i.k]
        elif i.code == 0x06:
            return i.k
        else:
            at += i.jt if {0x15: a == i.k, 0x35: a >= i.k, 0x25: a > i.k}[i.code] else i.jf


@pytest.mark.parametrize(
    "machine, column, arch", [("x86_64", 0, 0xC000003E), ("aarch64", 1, 0xC00000B7)]
)
def test_seccomp_allows_the_list_and_nothing_else(machine, column, arch):
    f, listed = seccomp_filter(machine), {v[column] for v in ALLOWED.values()} - {None}
    numbers = [
        *range(1200),
        *(n | 0x40000000 for n in range(600)),
        2**31 - 1,
        2**32 - 1,
    ]  # 0x40000000: the x32 calls
    assert {n for n in numbers if bpf(f, n, arch) == 0x7FFF0000} == listed and len(listed) > 30
    assert {bpf(f, n, arch) for n in numbers if n not in listed} == {0x00050001}
    assert {bpf(f, n, other) for n in numbers for other in (0, 0x40000003, arch ^ 1)} == {
        0x80000000
    }
    assert f.len < 100 and all(
        i.jt < f.len - at and i.jf < f.len - at
        for at, i in enumerate(f.filter[: f.len])
        if i.code not in (0x06, 0x20)
    )


DANGEROUS = """open openat openat2 socket connect clone clone3 fork vfork execve kill tgkill ptrace
prctl mount unlink chmod io_uring_setup bpf process_vm_readv setrlimit prlimit64 memfd_create"""


def test_no_dangerous_call_is_on_the_list():
    assert not set(ALLOWED) & set(DANGEROUS.split())


def in_child(f):
    """Run `f` in a forked child; what it returned or raised, as plain data."""
    r, w = os.pipe()
    if (pid := os.fork()) == 0:
        os.dup2(w, 4)  # a sandboxed child keeps the descriptors below 5
        try:
            result = f()
        except BaseException as e:
            result = f"{type(e).__name__}: {e}"
        os.write(4, json.dumps(result).encode())
        os._exit(0)
    os.close(w)
    with os.fdopen(r) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return json.loads(text)


def entered(**kw):
    """Enter a sandbox and attack it: (state of the layers, probes that worked)."""
    sb = Sandbox(**kw)
    sb.unshare()
    sb.seal()
    sb.enter()
    os.environ.clear()
    return sb.state, [p for p, stopped in attack(sb).items() if not stopped]


def denied(*a):
    raise OSError(38, "Function not implemented")


MISSING = dict(
    seccomp=lambda m: m.setattr(platform, "machine", lambda: "riscv64"),
    landlock=lambda m: m.setattr(sandbox, "landlock_ruleset", denied),
    namespaces=lambda m: m.setattr(sandbox, "leave_namespaces", denied),
)


@pytest.mark.parametrize(
    "gone",
    [
        (),
        ("seccomp",),
        ("landlock",),
        ("namespaces",),
        ("seccomp", "landlock"),
        ("seccomp", "landlock", "namespaces"),
    ],
)
def test_a_layer_that_the_machine_lacks_is_reported_and_the_others_hold(monkeypatch, gone):
    for layer in gone:
        MISSING[layer](monkeypatch)
    state, worked = in_child(entered)
    assert set(state) == set(LAYERS)
    missing = [layer for layer, why in state.items() if why.startswith("missing: ")]
    assert [layer for layer in missing if layer != "uid"] == sorted(gone, key=LAYERS.index)
    rest = [layer for layer in LAYERS if layer not in (*gone, "uid")]
    assert {layer: state[layer] for layer in rest} == dict.fromkeys(rest, "on")
    proved = isolation_level({p: "" if p in worked else "x" for p in PROBES})
    if "seccomp" not in gone:
        assert worked == []
    elif len(gone) < 3:
        assert "fork" not in worked and "write" not in worked
        assert proved < 3
    else:
        assert "read" in worked
        assert proved == 1


class MacLibrary:
    """The calls that are made of a Mac's system library, and what was asked."""

    def __init__(self, refuse=False):
        self.asked, self.refuse = [], refuse

    def sandbox_init(self, profile, flags, why):
        self.asked.append((profile, flags.value))
        return -1 if self.refuse else 0

    def proc_pid_rusage(self, pid, kind, fields):
        fields[2], fields[3], fields[8] = 3 * 10**9, 10**9, 5 << 20
        return 0

    def mach_timebase_info(self, tick):
        tick[0], tick[1] = 125, 250
        return 0


@pytest.fixture
def mac(monkeypatch):
    """This machine seen as a Mac: no Linux call may be made, the system library is a stand-in."""
    library = MacLibrary()
    monkeypatch.setattr(sys, "platform", "darwin")
    for module in sandbox, probes, process, zygote, start:
        monkeypatch.setattr(module, "LINUX", False)
    for module in sandbox, namespaces:
        monkeypatch.setattr(module, "LIBC", library)
    monkeypatch.setattr(sandbox, "LAYERS", ("limits", "seatbelt"))
    monkeypatch.setattr(ctypes, "CDLL", lambda *a, **k: library)
    return library


def test_a_mac_gets_limits_and_its_own_sandbox(mac):
    def limit(name):
        return resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[0]

    space = limit("AS")

    def f():
        sb = Sandbox()
        sb.unshare()
        sb.seal()
        sb.enter()
        return (
            sb.state,
            [mac.asked[0][0].decode(), mac.asked[0][1]],
            sb.caps_memory,
            limit("FSIZE"),
            limit("AS"),
        )

    assert in_child(f) == [
        {"limits": "on", "seatbelt": "on"},
        ["pure-computation", 1],
        False,
        0,
        space,
    ]


def test_a_mac_that_refuses_runs_nothing(mac):
    mac.refuse = True

    def f():
        sb = Sandbox()
        sb.seal()
        sb.enter()

    assert in_child(f) == "PermissionError: [Errno 1] refused: 'sandbox_init'"


def test_a_system_without_any_known_layer_says_so(mac, monkeypatch):
    monkeypatch.setattr(sandbox, "LIBC", types.SimpleNamespace())
    monkeypatch.setattr(sandbox, "resource", None)
    state = Sandbox().state
    assert set(state) == {"limits", "seatbelt"}
    assert all(why.startswith("missing: ") for why in state.values())
    text = str(Isolation(0, state, dict.fromkeys(PROBES, ""), 0.1))
    assert text.startswith("L0 (no isolation)")
    assert "a program can read your files" in text
    assert set(state) <= set(FIXES)


def test_a_mac_counts_time_and_memory_by_its_own_call(mac):
    assert (cpu_of(1), memory_of(1)) == (2.0, 5 << 20)


def test_memory_is_watched_where_the_kernel_does_not_hold_the_limit():
    with Executor(
        workers=1,
        preload=(),
        timeout=60,
        memory=64,
        without=["limits", "landlock", "namespaces"],
        allow_weak=True,
    ) as ex:
        assert ex.isolation.probes["memory"] == "killed from outside"
        r = ex.run(['x = b"x" * (1 << 29)\nwhile True: pass', 'answer = len(b"x" * (1 << 20))'])
        assert [x.status for x in r] == ["memory", "ok"]
        assert r[0].error == "stopped: it took too much memory"


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=200)
    | st.builds(
        lambda d: json.dumps(d).encode(),
        st.dictionaries(
            st.sampled_from(["status", "answer", "stdout", "error", "x"]),
            st.none()
            | st.integers()
            | st.text(max_size=5)
            | st.sampled_from(["ok", "error"])
            | st.lists(st.integers(), max_size=3),
            max_size=5,
        ),
    ),
    st.integers(0, 3),
    st.integers(0, 255),
)
def test_no_message_breaks_the_host(data, verdict, status):
    assert read_message(data, verdict, status, 0.1, 2.0).status in (
        "ok",
        "error",
        "memory",
        "output",
        "killed",
        "timeout",
    )


@pytest.mark.parametrize(
    "change",
    [
        dict(status="fine"),
        dict(status="timeout"),
        dict(status=1),
        dict(stdout=1),
        dict(error=2),
        dict(reward=1),
    ],
)
def test_a_message_with_a_wrong_field_is_no_result(change):
    message = dict(status="ok", answer=1, stdout="", error=None)
    assert read_message(json.dumps(message).encode(), DONE, 0, 0.1, 2.0).ok
    assert read_message(json.dumps({**message, **change}).encode(), DONE, 0, 0.1, 2.0) == Result(
        "killed", None, "", "it sent a broken result", 0.1
    )


names = st.sampled_from(
    [
        "x",
        "y",
        "answer",
        "f",
        "print",
        "len",
        "range",
        "os",
        "sys",
        "exit",
        "open",
        "__builtins__",
        "__import__",
    ]
)
atoms = (
    names
    | st.integers(-10, 10**6).map(str)
    | st.sampled_from(["[]", "{}", '""', "None", "1e308", "(1,)", 'b"x"', "..."])
)
exprs = st.recursive(
    atoms,
    lambda e: (
        st.tuples(e, st.sampled_from("+ - * / // % ** < == and or in is .".split()), e).map(
            " ".join
        )
        | e.map(lambda a: f"({a})")
        | e.map(lambda a: f"[{a} for x in range(9)]")
        | st.tuples(e, e).map(lambda a: f"{a[0]}({a[1]})")
        | st.tuples(e, e).map(lambda a: f"{a[0]}[{a[1]}]")
        | e.map(lambda a: f"(lambda x: {a})")
    ),
    max_leaves=6,
)
lines = (
    st.tuples(names, exprs).map(lambda a: f"{a[0]} = {a[1]}")
    | exprs
    | exprs.map(lambda a: f"while {a}: x = 1")
    | exprs.map(lambda a: f"try: {a}\nexcept BaseException: pass")
    | exprs.map(lambda a: f"for y in {a}: print(y)")
    | st.sampled_from(
        [
            "import os, sys",
            "raise x",
            "del answer",
            "def f(x): return f(x)",
            "from math import *",
            "import os\nos._exit(1)",
        ]
    )
)
programs = st.lists(lines, min_size=1, max_size=5).map("\n".join)


@st.composite
def mutated(draw):
    s = list(
        draw(st.sampled_from([p for p in HOSTILE.values() if "sleep" not in p and "kill" not in p]))
    )
    for _ in range(draw(st.integers(1, 6))):
        i = draw(st.integers(0, len(s)))
        if draw(st.booleans()) and i < len(s):
            del s[i : i + draw(st.integers(1, 8))]
        else:
            s.insert(
                i,
                draw(st.sampled_from(list("()[]{}:=\n \0\ud800") + ["answer", "while True: pass"])),
            )
    return "".join(s)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(programs | mutated(), min_size=10, max_size=20, unique=True))
def test_random_programs_never_take_the_sandbox_down(tiny, batch):
    pids = [w.proc.pid for w in tiny._pool]
    rs = tiny.run(batch)
    assert [w.proc.pid for w in tiny._pool] == pids and len(rs) == len(batch)
    assert all(r.status in ("ok", "error", "timeout", "memory", "output", "killed") for r in rs)
    assert tiny.run(["answer = sum(range(10))"])[0].answer == 45


@pytest.fixture(scope="module")
def tiny():
    with Executor(preload=(), timeout=0.1, wall=0.3, memory=64) as ex:
        yield ex


HOST = """
import signal, sys; sys.path.insert(0, %r)
# In the background of a script the tests ignore SIGINT, and so would what they run.
signal.signal(signal.SIGINT, signal.default_int_handler)
from rstar_nb.executor.pool import Executor
ex = Executor(preload=(), timeout=60)
print("ready", flush=True)
%s
"""


def host(body, before=lambda: None):
    """A process that uses the executor, once its zygotes are up."""
    p = subprocess.Popen(
        [sys.executable, "-c", HOST % (str(ROOT), body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert p.stdout.readline() == "ready\n"
    return p


def gone(pids, seconds=30):
    """Wait until all these processes have ended."""
    for fd in pids:
        if fd is None:
            continue
        ready = select.select([fd], [], [], seconds)[0]
        os.close(fd)
        if not ready:
            return False
    return True


def pidfd(pid):
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def children_running(p, n):
    """The processes below `p` once there are at least `n` of them."""
    while len(t := tree(p.pid)) < n and p.poll() is None:
        pass
    return t


def is_zygote(pid):
    return start.__name__ in Path(f"/proc/{pid}/cmdline").read_text()


LOOPS = 'ex.run([f"while True: x = {i}" for i in range(4)])'


@pytest.mark.parametrize(
    "how, body",
    [
        (signal.SIGKILL, LOOPS),
        (signal.SIGINT, LOOPS),
        (signal.SIGTERM, LOOPS),
        (None, "raise RuntimeError"),
        (signal.SIGKILL, "import os\nos.fork() or os.fork()\n" + LOOPS),
    ],
)
def test_nothing_survives_the_caller(how, body):
    if not hasattr(os, "pidfd_open"):
        pytest.skip("needs pidfd")
    before = our_files()
    p = host(body)
    below = children_running(p, 6) if how else tree(p.pid)
    if "fork" in body:
        # A fork of the host lives on, and so do zygotes it has started: only the host's own count.
        children = Path(f"/proc/{p.pid}/task/{p.pid}/children").read_text().split()
        below = [q for q in below if str(q) in children and is_zygote(q)]
        assert below
    fds = [pidfd(q) for q in below]
    if how:
        os.kill(p.pid, how)
    try:
        # It ends by what is tested here, not because its programs have used up their time.
        assert p.wait() == (-how if how else 1)
        assert gone(fds)
    finally:
        try:
            os.killpg(p.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    assert our_files() == before


def our_files():
    """What the executor may have left in the temporary folder; the battery's own is not its."""
    names = os.listdir(tempfile.gettempdir())
    return sorted(n for n in names if "rstar" in n and "battery" not in n)


def test_an_exception_in_the_caller_stops_what_runs_and_the_next_call_works():
    with Executor(preload=(), workers=1, timeout=60) as ex:
        fds = [pidfd(q) for q in tree(ex._pool[0].proc.pid)]

        def interrupt(*_):
            raise KeyboardInterrupt

        signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            ex.run(["while True: pass"])
        assert gone(fds)
        assert ex.run(["answer = 1"])[0].answer == 1


def test_a_restart_of_the_notebook_kernel_leaves_nothing():
    manager = pytest.importorskip("jupyter_client").KernelManager(kernel_name="python3")
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=120)

    def execute(code):
        client.execute(code, reply=True, timeout=120)

    try:
        execute(
            f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
            "from rstar_nb.executor.pool import Executor\n"
            'ex = Executor(preload=())\nr = ex.run(["answer = 1"])'
        )
        below = tree(manager.provisioner.pid)
        assert len(below) >= 4
        fds = [pidfd(q) for q in below]
        manager.restart_kernel(now=True)
        assert gone(fds)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_after_a_fork_of_the_host_the_child_uses_zygotes_of_its_own(plain):
    assert plain.run(["answer = 1"])[0].answer == 1
    if (pid := os.fork()) == 0:
        try:
            results = plain.run([f"answer = {i}" for i in range(20)])
            plain.close()
            os._exit([r.answer for r in results] != list(range(20)))
        finally:
            os._exit(9)
    results = plain.run([f"answer = -{i}" for i in range(20)])
    assert os.waitpid(pid, 0)[1] == 0
    assert [r.answer for r in results] == [-i for i in range(20)]
    assert plain.run(["answer = 2"])[0].answer == 2


def test_a_dead_zygote_costs_one_program():
    with Executor(preload=(), workers=1, timeout=60) as ex:
        pid = ex._pool[0].proc.pid
        t = threading.Timer(0.2, lambda: os.kill(pid, signal.SIGKILL))
        t.start()
        r = ex.run(["while True: pass", "answer = 2", "answer = 3"])
        assert [x.status for x in r] == ["killed", "ok", "ok"]
        assert ex._pool[0].proc.pid != pid


def test_a_child_that_cannot_start_blames_no_program():
    """A child that cannot enter must not answer for a program it never read.

    Without seccomp a program can lower its parent's limits; the next child cannot set its own.
    """
    with Executor(
        workers=1,
        preload=(),
        timeout=2,
        without=["seccomp", "uid", "namespaces", "landlock"],
        allow_weak=True,
    ) as ex:
        pid = ex._pool[0].proc.pid
        lower = "import os, resource\nresource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))"
        (r,) = ex.run([lower + "\nanswer = 1"])
        assert r.answer == 1
        results = ex.run(["answer = 2", "answer = 3", "answer = 4"])
        assert [x.answer for x in results] == [2, 3, 4]
        assert ex._pool[0].proc.pid != pid


def test_children_that_can_never_start_are_an_error(plain, monkeypatch):
    def lost(w):
        w.lost = True

    monkeypatch.setattr(Worker, "receive", lost)
    with pytest.raises(SandboxError, match="no child can enter"):
        plain.run(["answer = 1"])
    monkeypatch.undo()
    assert plain.run(["answer = 1"])[0].answer == 1


def test_a_zygote_that_falls_silent_is_replaced(monkeypatch):
    with Executor(preload=(), workers=1, timeout=0.1, wall=0.2) as ex:
        monkeypatch.setattr(pool, "STALLED", 0.3)
        first = ex._pool[0].proc.pid
        for q in tree(first):
            os.kill(q, signal.SIGSTOP)
        results = ex.run(["answer = 1", "answer = 2"])
        assert [r.status for r in results] == ["killed", "ok"]
        assert ex._pool[0].proc.pid != first


def test_a_program_that_is_too_long_is_not_sent(plain):
    r = plain.run(["#" * (2 << 20), "answer = 1"])
    assert [x.status for x in r] == ["error", "ok"] and r[0].error == "the program is too long"


def test_it_works_from_threads_and_outlives_the_thread_that_made_it():
    made = []
    t = threading.Thread(target=lambda: made.append(Executor(preload=(), workers=1)))
    t.start()
    t.join()
    with made[0] as ex:
        assert ex.run(["answer = 1"])[0].answer == 1
    with Executor(preload=()) as ex:
        answers = [None] * 4

        def work(i):
            results = ex.run([f"answer = {i} * 1000 + {j}" for j in range(20)])
            answers[i] = [r.answer for r in results]

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert answers == [[i * 1000 + j for j in range(20)] for i in range(4)]


def test_no_descriptor_is_left_open():
    def count():
        return len(os.listdir("/proc/self/fd"))

    with Executor(preload=()) as ex:
        ex.run(["answer = 1"])
    before = count()
    for _ in range(3):
        with Executor(preload=()) as ex:
            ex.run([f"answer = {i}" for i in range(20)])
    assert count() == before


def loaded_by(imports):
    """The modules in a fresh interpreter that has run these import statements."""
    code = f"import json, sys; {imports}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_importing_it_does_not_import_torch():
    loaded = loaded_by("import rstar_nb.executor.pool")
    assert not {"torch", "numpy", "sympy", "fastcore"} & set(loaded)


def test_a_zygote_loads_nothing_but_its_own_half_of_the_wing():
    """The host's half, the answers and the models must not be in the memory that a child gets."""
    ours = {m for m in loaded_by(f"import {start.__name__}") if m.startswith("rstar_nb")}
    halves = "child limits namespaces plain probes process sandbox seccomp stage start"
    modules = [f"rstar_nb.executor.{m}" for m in f"{halves} surroundings zygote".split()]
    assert ours == {"rstar_nb", "rstar_nb.executor", *modules}


def test_a_package_that_a_zygote_loads_does_nothing_when_it_is_imported():
    for name in "rstar_nb/__init__.py", "rstar_nb/executor/__init__.py":
        body = ast.parse((ROOT / name).read_text()).body
        assert all(isinstance(node, (ast.Expr, ast.Assign)) for node in body), name
        assert all(isinstance(node.value, ast.Constant) for node in body), name


def benchmark():
    spec = importlib.util.spec_from_file_location(
        "executor_benchmark", ROOT / "tests" / "benchmarks" / "executor.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_memory_stays_flat_over_many_programs():
    rows = benchmark().long(600, chunks=3)
    assert [r[0] for r in rows] == [200, 400, 600]
    assert abs(rows[-1][3] - rows[0][3]) < 4
    assert all(abs(a - b) < 2 for a, b in zip(rows[0][4], rows[-1][4], strict=True))


def test_the_benchmark_writes_a_record(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "tests/benchmarks/executor.py"),
            "--programs",
            "20",
            "--out",
            str(tmp_path / "record.json"),
        ],
        capture_output=True,
        text=True,
    )
    record = json.loads((tmp_path / "record.json").read_text())
    assert len(record["rows"]) == 7, done.stderr
    assert all(rate > 0 for _, rate, _ in record["rows"])
    assert record["machine"]["cores"]
    assert "| executor, plain |" in done.stdout
