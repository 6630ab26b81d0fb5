"""Programs that do harm, and programs that must not be harmed.

A hostile program that gets what it wants says BREACH in `answer`; what it does to files, processes
and sockets is seen from outside. `{dir}` is a folder with a secret in it, `{host}` the process id
of the host, `{tcp}` `{udp}` ports and `{unix}` an abstract socket that listen there. Signals are 0
and paths are inside `{dir}`, so that a program that gets through does no damage.
"""

import re


def _split(text):
    return {
        name.strip(): body.strip("\n")
        for name, body in re.findall(r"^### (.+)\n((?:(?!### ).*\n)*)", text, re.M)
    }


TIME = _split("""
### loop
while True: pass
### catches everything
while True:
    try:
        while True: pass
    except BaseException: pass
### sum of an endless iterator
import itertools
answer = sum(itertools.repeat(1))
### count in C
from collections import deque
import itertools
deque(itertools.count(), maxlen=0)
### huge power
answer = len(bin(7 ** (10 ** 9)))
### tower of powers
answer = 9 ** 9 ** 9
### int to text
import sys
sys.set_int_max_str_digits(0)
answer = len(str(3 ** 10_000_000))
### text to int
import sys
sys.set_int_max_str_digits(0)
answer = int('7' * 5_000_000) % 10
### regex backtracking
import re
answer = re.match(r'(a+)+$', 'a' * 60 + 'b')
### factorial
import math
answer = math.factorial(10 ** 8) % 7
### signals ignored
import signal
for s in range(1, 65):
    try: signal.signal(s, signal.SIG_IGN)
    except Exception: pass
while True: pass
### signals blocked
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
while True: pass
### hanging destructor
class A:
    def __del__(self):
        while True: pass
a = A()
del a
### hanging property in the answer
class A(float):
    def __float__(self):
        while True: pass
    __repr__ = __str__ = __float__
class B:
    def __repr__(self):
        while True: pass
answer = [A(1), B()]
### sleep
import time
time.sleep(1000)
### sleep in pieces
import time
while True: time.sleep(.01)
### select forever
import select
select.select([], [], [])
### deadlock
import threading
l = threading.Lock()
l.acquire()
l.acquire()
### wait for an event
import threading
threading.Event().wait()
### hanging text of an exception
class E(Exception):
    def __str__(self):
        while True: pass
raise E
### sorting with a hanging key
sorted([1, 2], key=lambda x: [0 for _ in iter(int, 1)])
### primes by trial division
answer = [n for n in range(2, 10 ** 9) if all(n % d for d in range(2, n))][-1]
### fibonacci
f = lambda n: n if n < 2 else f(n - 1) + f(n - 2)
answer = f(80)
### decimal with a million digits
from decimal import Decimal, getcontext
getcontext().prec = 10 ** 7
answer = str(Decimal(2).sqrt())[:5]
### fraction that grows
from fractions import Fraction
x = Fraction(1, 3)
while True: x = x * x + 1
""")
TIME_ENDS = _split("""
### recursion
def f(n): return f(n + 1)
f(0)
### recursion with the limit raised
import sys
sys.setrecursionlimit(10 ** 9)
def f(n): return f(n + 1)
f(0)
### recursion through C
import sys
sys.setrecursionlimit(10 ** 9)
x = []
for _ in range(10 ** 6): x = [x]
answer = repr(x)[:5]
### exit handler that hangs
import atexit
@atexit.register
def f():
    while True: pass
answer = 1
### reads stdin
answer = input()
### reads all of stdin
import sys
answer = sys.stdin.read() or None
### breakpoint
breakpoint()
### help pager
help(print)
### nested source
exec('(' * 500 + ')' * 500)
### deep expression
exec('-' * 100_000 + '1')
### compile bomb
exec('x = ' + '[' * 90 + '1' + ']' * 90 + '\\n' + 'y = 1 + ' * 20_000 + '1')
### asyncio sleep
import asyncio
asyncio.run(asyncio.sleep(1000))
### alarm
import signal
signal.alarm(1)
while True: pass
""")
MEMORY = _split("""
### list
x = [0] * 10 ** 10
### growing list
x = []
while True: x.append(bytes(10 ** 6))
### string
x = 'a' * 10 ** 11
### doubling string
x = 'a'
while True: x = x + x
### bytearray
x = bytearray(8 << 30)
### dict
x = {i: i for i in range(10 ** 9)}
### anonymous mmap
import mmap
x = [mmap.mmap(-1, 1 << 28) for _ in range(100)]
### memory error caught in a loop
x = []
while True:
    try: x.append(bytearray(1 << 24))
    except MemoryError: pass
### memory error hoarded
x, n = [], 1 << 30
while n:
    try: x.append(bytearray(n))
    except MemoryError: n //= 2
while True: pass
### integer
x = 1 << (10 ** 11)
### format width
x = f'{1:>{10 ** 11}}'
### range to list
x = list(range(10 ** 12))
### permutations
import itertools
x = list(itertools.permutations(range(12)))
### raise the limit, then allocate
import resource
try: resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
except Exception: pass
x = bytearray(4 << 30)
""")
NUMPY = _split("""
### numpy array
import numpy as np
x = np.ones(10 ** 11)
### numpy load of a pickle
import numpy as np
answer = np.load('{dir}/evil.npy', allow_pickle=True) and 'BREACH'
### numpy save
import numpy as np
np.save('{dir}/x.npy', np.ones(3))
### numpy fromfile
import numpy as np
answer = 'BREACH' if np.fromfile('{dir}/secret', dtype='u1').size else None
### numpy memmap
import numpy as np
x = np.memmap('{dir}/x.bin', shape=(10,), mode='w+')
### sympy preview
import sympy
sympy.preview(sympy.Symbol('x'), viewer='file', filename='{dir}/x.png')
### sympy runs text
import sympy
answer = sympy.sympify("__import__('os').popen('echo BREACH').read()")
### hanging sympy
from sympy import *
x = symbols('x')
answer = str(factorint(10 ** 120 + 7 ** 140 + 12345678910111213))
### sympy context
import sympy, mpmath
mpmath.mp.dps = 3
sympy.Integer.__add__ = lambda s, o: 42
### numpy seed and print
import numpy as np
np.random.seed(9)
np.set_printoptions(precision=1)
np.add = None
""")
PROCESS = _split("""
### fork
import os
pid = os.fork()
answer = 'BREACH'
### fork that stays
import os, time
if os.fork() == 0:
    time.sleep(30)
answer = 'BREACH'
### fork many
import os, time
for _ in range(20):
    if os.fork() == 0: time.sleep(30)
answer = 'BREACH'
### double fork daemon
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(30)
    os._exit(0)
answer = 'BREACH'
### vfork
import ctypes
answer = 'BREACH' if ctypes.CDLL(None).syscall(57) >= 0 else None
### subprocess
import subprocess
done = subprocess.run(['/bin/echo', 'x'], capture_output=True)
answer = 'BREACH' if done.returncode == 0 else None
### os.system
import os
answer = 'BREACH' if os.system('true') == 0 else None
### popen
import os
answer = 'BREACH' if os.popen('echo x').read() else None
### exec
import os
os.execv('/bin/sleep', ['sleep', '30'])
### posix_spawn
import os
os.posix_spawn('/bin/sleep', ['sleep', '30'], {})
answer = 'BREACH'
### multiprocessing
import multiprocessing as m
p = m.Process(target=print)
p.start()
answer = 'BREACH'
### thread that stays
import threading, time
threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
answer = 'thread'
### signal the parent
import os
os.kill(os.getppid(), 0)
answer = 'BREACH'
### signal the host
import os
os.kill({host}, 0)
answer = 'BREACH'
### signal the group of the parent
import os
g = os.getpgid(os.getppid())
if g: os.killpg(g, 0)
answer = 'BREACH' if g else None
### signal everyone
import os
os.kill(-1, 0)
answer = 'BREACH'
### signal by tgkill
import ctypes, os
p = os.getppid()
answer = 'BREACH' if ctypes.CDLL(None).syscall(234, p, p, 0) == 0 else None
### stop itself
import os, signal
os.kill(os.getpid(), signal.SIGSTOP)
### raise a stop
import signal
signal.raise_signal(signal.SIGSTOP)
### ptrace the parent
import ctypes, os
answer = 'BREACH' if ctypes.CDLL(None).ptrace(0x4206, os.getppid(), 0, 0) == 0 else None
### ptrace the host
import ctypes
answer = 'BREACH' if ctypes.CDLL(None).ptrace(0x4206, {host}, 0, 0) == 0 else None
### memory of the parent
import os
answer = 'BREACH' if open(f'/proc/{os.getppid()}/mem', 'rb') else None
### environment of the host
answer = 'BREACH' if open('/proc/{host}/environ', 'rb').read() else None
### command line of the host
answer = 'BREACH' if open('/proc/{host}/cmdline', 'rb').read() else None
### process_vm_readv
import ctypes, os
here = ctypes.create_string_buffer(8)
local = (ctypes.c_size_t * 2)(ctypes.addressof(here), 8)
remote = (ctypes.c_size_t * 2)(id(None), 8)
one, zero = ctypes.c_ulong(1), ctypes.c_ulong(0)
got = ctypes.CDLL(None).process_vm_readv(os.getppid(), local, one, remote, one, zero)
answer = 'BREACH' if got > 0 else None
### raise the open-file limit
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
answer = 'BREACH'
### raise the CPU limit
import resource
resource.setrlimit(resource.RLIMIT_CPU, (10 ** 6, 10 ** 6))
answer = 'BREACH'
### limit of the parent
import os, resource
resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))
answer = 'BREACH'
### become root
import os
os.setuid(0)
open('{dir}/secret').read()
answer = 'BREACH'
### priority of the host
import os
os.setpriority(os.PRIO_PROCESS, {host}, 10)
answer = 'BREACH'
### affinity of the host
import os
os.sched_setaffinity({host}, [0])
answer = 'BREACH'
### new namespaces
import ctypes
answer = 'BREACH' if ctypes.CDLL(None).unshare(0x10000000) == 0 else None
### pidfd of the host
import os
fd = os.pidfd_open({host})
answer = 'BREACH'
""")
FILES = _split("""
### read passwd
answer = 'BREACH' if open('/etc/passwd').read() else None
### read shadow
answer = 'BREACH' if open('/etc/shadow').read() else None
### read the secret
answer = 'BREACH' if open('{dir}/secret').read() else None
### read by a relative path
answer = 'BREACH' if open('tests/hostile/battery.py').read() else None
### read by os.open
import os
answer = 'BREACH' if os.read(os.open('{dir}/secret', os.O_RDONLY), 10) else None
### read by a raw call
import ctypes
answer = 'BREACH' if ctypes.CDLL(None).syscall(2, b'{dir}/secret', 0) >= 0 else None
### read by openat2
import ctypes
how = (ctypes.c_uint64 * 3)(0, 0, 0)
answer = 'BREACH' if ctypes.CDLL(None).syscall(437, -100, b'{dir}/secret', how, 24) >= 0 else None
### read by io_uring
import ctypes
answer = 'BREACH' if ctypes.CDLL(None).syscall(425, 8, (ctypes.c_char * 200)()) >= 0 else None
### read this interpreter
import sys
answer = 'BREACH' if open(sys.executable, 'rb').read(4) else None
### import the project
import sys
sys.path.append('{root}')
import rstar_nb.answers
answer = 'BREACH'
### import from a folder
import sys
sys.path.append('{dir}')
import evil
answer = 'BREACH'
### run a file
import runpy
runpy.run_path('{dir}/evil.py')
answer = 'BREACH'
### list the root
import os
answer = 'BREACH' if os.listdir('/') else None
### walk the disk
import os
answer = 'BREACH' if any(f for _, _, f in os.walk('/')) else None
### stat
import os
answer = 'BREACH' if os.stat('{dir}/secret').st_size else None
### write in the working folder
open('written', 'w').write('x')
answer = 'BREACH'
### write in the folder
open('{dir}/written', 'w').write('x')
### write in tmp
open('/tmp/rstar-hostile-{host}-written', 'w').write('x')
answer = 'BREACH'
### write in shared memory
open('/dev/shm/rstar-hostile-{host}-written', 'w').write('x')
answer = 'BREACH'
### temporary file
import tempfile
f = tempfile.NamedTemporaryFile(delete=False, dir='{dir}')
answer = 'BREACH'
### fill the disk
with open('{dir}/big', 'wb') as f:
    for _ in range(50): f.write(bytes(1 << 20))
### append to the secret
open('{dir}/secret', 'a').write('x')
### unlink
import os
os.unlink('{dir}/victim')
### rmtree
import shutil
shutil.rmtree('{dir}/folder')
answer = 'tried'
### rename
import os
os.rename('{dir}/victim', '{dir}/moved')
### symlink
import os
os.symlink('/etc/passwd', '{dir}/link')
### hard link
import os
os.link('{dir}/victim', '{dir}/hard')
### chmod
import os
os.chmod('{dir}/victim', 0o777)
### utime
import os
os.utime('{dir}/victim', (1, 1))
### mkdir
import os
os.mkdir('{dir}/new')
### mkfifo
import os
os.mkfifo('{dir}/fifo')
### chdir
import os
os.chdir('{dir}')
open('here', 'w')
### chroot
import os
os.chroot('{dir}')
answer = 'BREACH'
### mount
import ctypes
answer = 'BREACH' if ctypes.CDLL(None).mount(b'none', b'{dir}', b'tmpfs', 0, None) == 0 else None
### memfd
import os
os.execv(f'/proc/self/fd/{os.memfd_create("x")}', ['x'])
### core dump
import os
os.chdir('{dir}')
os.abort()
### sqlite
import sqlite3
sqlite3.connect('{dir}/db').execute('create table t (x)')
answer = 'BREACH'
### shared memory by name
from multiprocessing import shared_memory
shared_memory.SharedMemory('rstar-hostile-{host}', create=True, size=10)
answer = 'BREACH'
""")
NETWORK = _split("""
### tcp
import socket
s = socket.create_connection(('127.0.0.1', {tcp}), 1)
s.sendall(b'BREACH')
### udp
import socket
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'BREACH', ('127.0.0.1', {udp}))
### listen
import socket
s = socket.socket()
s.bind(('127.0.0.1', 0))
s.listen()
answer = 'BREACH'
### urllib
import urllib.request
answer = 'BREACH' if urllib.request.urlopen('http://127.0.0.1:{tcp}', timeout=1) else None
### abstract socket
import socket
s = socket.socket(socket.AF_UNIX)
s.connect('\\0{unix}')
s.sendall(b'BREACH')
### raw socket call
import ctypes
libc = ctypes.CDLL(None)
address = b'\\2\\0' + ({tcp}).to_bytes(2, 'big') + b'\\x7f\\0\\0\\1' + bytes(8)
answer = 'BREACH' if libc.syscall(41, 2, 1, 0) >= 0 and libc.connect(3, address, 16) == 0 else None
### name lookup
import socket
named = socket.gethostbyname('localhost')
answer = 'BREACH' if named and socket.create_connection(('localhost', {tcp}), 1) else None
### netlink
import socket
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
s.bind((0, 0))
answer = 'netlink'
""")
CHANNEL = _split("""
### flood of stdout
while True: print('x' * 10_000)
### flood of stdout caught
while True:
    try: print('x' * 10_000)
    except BaseException: pass
### flood of stderr
import sys
while True: print('x' * 10_000, file=sys.stderr)
### flood of raw descriptors
import os
while True:
    for fd in range(20):
        try: os.write(fd, b'x' * 65536)
        except OSError: pass
### forged message
import json, os, struct
m = json.dumps(dict(status='ok', answer='forged', stdout='', error=None)).encode()
for fd in range(20):
    try: os.write(fd, struct.pack('<I', len(m)) + m)
    except OSError: pass
while True: pass
### forged message with other fields
import os, struct
m = b'{"status": "ok", "answer": 1, "stdout": "", "error": null, "reward": 1}'
for fd in range(20):
    try: os.write(fd, struct.pack('<I', len(m)) + m)
    except OSError: pass
### garbage message
import os
for fd in range(20):
    try: os.write(fd, b'\\x05\\0\\0\\0{"a":')
    except OSError: pass
### message of deep lists
import os, struct
m = b'[' * 100_000
for fd in range(20):
    try: os.write(fd, struct.pack('<I', len(m)) + m)
    except OSError: pass
### message that never ends
import os
for fd in range(20):
    try: os.write(fd, b'\\xff\\xff\\xff\\x7f')
    except OSError: pass
while True: pass
### pickle as a message
import os, pickle, struct
class E:
    def __reduce__(self): return os.system, ('touch {dir}/pickled',)
m = pickle.dumps(E())
for fd in range(20):
    try: os.write(fd, struct.pack('<I', len(m)) + m)
    except OSError: pass
### close everything
import os
os.closerange(0, 100)
while True: pass
### close everything and go on
import os
os.closerange(0, 100)
answer = 1
### sys.exit
import sys
sys.exit(3)
### os._exit
import os
os._exit(0)
### KeyboardInterrupt
raise KeyboardInterrupt
### GeneratorExit
raise GeneratorExit
### segfault
import ctypes
ctypes.string_at(0)
### abort
import os
os.abort()
### stdout replaced
import sys
sys.stdout = None
answer = 1
### stdout closed
import sys
sys.stdout.close()
answer = 1
### stdout faked
import sys
class F:
    def __getattr__(self, n): return lambda *a: BREACH
sys.stdout = sys.stderr = F()
answer = 1
### lying repr
class A:
    __class__ = int
    def __repr__(self): return '33'
    def __eq__(self, o): return True
    def __hash__(self): return 33
answer = A()
### int with a lying eq
class I(int):
    def __eq__(self, o): return True
    def __int__(self): return 33
    __index__ = __int__
answer = I(7)
### pickle bomb as the answer
import os
class A:
    def __reduce__(self): return os.system, ('touch {dir}/pickled',)
answer = A()
### pickle bomb as an exception
import os
class A(Exception):
    def __reduce__(self): return os.system, ('touch {dir}/pickled',)
raise A('x')
### exception whose text raises
class E(Exception):
    def __str__(self): raise E
raise E
### exception with a huge text
raise ValueError('x' * 10 ** 8)
### exception named like ours
class OutputLimit(BaseException): pass
raise OutputLimit('fake')
### exception that says timeout
raise TimeoutError('stopped after 2.0 s of CPU')
### word error in honest output
print('Traceback (most recent call last): error')
answer = 'error'
### surrogates
print('\\udc80')
answer = '\\udc80'
### NUL and ANSI
print('\\0\\x1b[31m')
answer = '\\0\\x1b[2J'
### nan and inf
answer = [float('nan'), float('inf')]
### long integer
answer = 10 ** 5000
### very long integer
answer = 1 << 10 ** 8
### nested answer
x = []
for _ in range(10 ** 5): x = [x]
answer = x
### answer that contains itself
answer = []
answer.append(answer)
### huge answer
answer = list(range(10 ** 7))
### answer that is code
answer = compile('1', 'x', 'eval')
### json patched
import json
json.dumps = json.JSONEncoder.encode = lambda *a, **k: 'BREACH'
answer = 1
### builtins patched
import builtins
builtins.exec = builtins.len = builtins.isinstance = builtins.str = lambda *a, **k: BREACH
answer = 1
### builtins removed
import builtins
for n in list(vars(builtins)):
    if not n.startswith('_'): delattr(builtins, n)
### settrace
import sys
def t(f, e, a): return t
sys.settrace(t)
answer = 1
### audit hook
import sys
def h(*a): raise RuntimeError
sys.addaudithook(h)
answer = 1
### os patched
import os
os.write = os._exit = os.read = lambda *a: 0
answer = 1
""")
LOOKING = _split("""
### subclasses
answer = [c for c in object.__subclasses__() if c.__name__ == 'Popen'][0](['/bin/echo'])
answer = 'BREACH'
### frames
import sys
f = sys._getframe()
seen = []
while f:
    seen += [str(v) for v in f.f_locals.values()]
    f = f.f_back
answer = 'BREACH' if any(
    '{secret}' in s for s in seen
    if len(s) < 10 ** 6 and 'frames_marker' not in s and 'f_back' not in s) else None
### everything alive
import gc
answer = 'BREACH' if any(
    type(o) is dict and any(
        type(v) is str and v == '{sec' + 'ret}'[:0] + '{half}' + '{other}' for v in o.values())
    for o in gc.get_objects()) else None
### environment
import os
answer = 'BREACH' if [k for k in os.environ if 'SECRET' in k] else None
### arguments
import sys
answer = 'BREACH' if [a for a in sys.argv + sys.orig_argv if '{secret}' == a] else None
### main module
import __main__
answer = 'BREACH' if hasattr(__main__, 'Executor') else None
### modules of the host
import sys
host = ('executor.pool', 'executor.worker', 'executor.result')
ours = [m.removeprefix('rstar_nb.') for m in sys.modules if m.startswith('rstar_nb.')]
foreign = [m for m in ours if m in host or not m.startswith('executor')]
answer = 'BREACH' if foreign or 'torch' in sys.modules else None
### text of earlier programs
import gc
answer = 'BREACH' if any(
    type(o) is dict and any(
        type(v) is str and 'canary program' + ' text' in v for v in o.values())
    for o in gc.get_objects()) else None
""")
CONTAMINATION = _split("""
### globals
global_left_behind = 1
answer = 42
### builtins
import builtins
builtins.print = builtins.sum = lambda *a, **k: 42
builtins.left = 1
### module attributes
import math, random
math.sqrt = lambda x: 42
random.random = lambda: 42
### decimal context
import decimal
decimal.getcontext().prec = 3
decimal.setcontext(decimal.Context(prec=2))
### random seed
import random
random.seed(99)
random.random()
### recursion limit
import sys
sys.setrecursionlimit(50)
### signal handlers
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, lambda *a: None)
### modules removed
import sys
for m in list(sys.modules): sys.modules.pop(m)
### modules replaced
import sys
sys.modules['math'] = sys.modules['fractions'] = sys.modules['random'] = None
### memory of small integers
import ctypes
ctypes.memmove(id(7) + 24, id(8) + 24, 4)
### float of a class
import fractions
fractions.Fraction.__add__ = lambda a, b: 42
### time zone and locale
import os, time
os.environ['TZ'] = 'America/New_York'
time.tzset()
### thread that writes later
import threading, time, os
def f():
    time.sleep(.2)
    for fd in range(10):
        try: os.write(fd, b'late')
        except OSError: pass
threading.Thread(target=f, daemon=True).start()
answer = 42
### garbage collector off
import gc
gc.disable()
gc.set_threshold(1)
### displayhook and excepthook
import sys
sys.excepthook = sys.displayhook = lambda *a: None
sys.set_int_max_str_digits(640)
""")
HOSTILE = {
    f"{c}: {n}": src
    for c, group in dict(
        time=TIME,
        ends=TIME_ENDS,
        memory=MEMORY,
        numpy=NUMPY,
        process=PROCESS,
        files=FILES,
        network=NETWORK,
        channel=CHANNEL,
        looking=LOOKING,
        contamination=CONTAMINATION,
    ).items()
    for n, src in group.items()
}

BENIGN = _split("""
### arithmetic
answer = 17 * 3 - 4 // 2
### comprehension
answer = len([x for x in range(1, 100) if x % 3 == 0])
### float
answer = 0.1 + 0.2
### big integer
answer = 2 ** 200 + 1
### recursion
def f(n): return 1 if n < 2 else n * f(n - 1)
answer = f(20)
### mutual recursion
def even(n): return True if n == 0 else odd(n - 1)
def odd(n): return False if n == 0 else even(n - 1)
answer = even(300)
### closure
def adder(n): return lambda x: x + n
answer = adder(3)(4)
### nested function reads a global
total = 0
def add(n):
    global total
    total += n
for i in range(5): add(i)
answer = total
### nonlocal
def counter():
    n = 0
    def up():
        nonlocal n
        n += 1
        return n
    return up
c = counter()
answer = [c(), c()]
### comprehension in a function sees a global
k = 3
def f(): return [x * k for x in range(4)]
answer = f()
### class
class P:
    def __init__(self, x): self.x = x
    def double(self): return P(self.x * 2)
answer = P(4).double().x
### dataclass
from dataclasses import dataclass, field
@dataclass(order=True)
class Q:
    x: int
    y: list = field(default_factory=list)
answer = [Q(1) < Q(2), repr(Q(3))]
### namedtuple
from collections import namedtuple
T = namedtuple('T', 'a b')
answer = T(1, 2).a + T(1, 2).b
### enum
from enum import Enum
class C(Enum):
    RED = 1
answer = C.RED.value
### generator
def g():
    yield from range(5)
answer = sum(g())
### fractions
from fractions import Fraction
answer = str(Fraction(1, 3) + Fraction(1, 6))
### decimal
from decimal import Decimal, getcontext
getcontext().prec = 10
answer = str(Decimal(1) / Decimal(7))
### itertools
from itertools import combinations, product, permutations
answer = [len(list(combinations(range(6), 2))), len(list(product('ab', repeat=3)))]
answer.append(len(set(permutations('aab'))))
### math
import math
answer = [math.gcd(12, 18), math.comb(5, 2), math.isqrt(50), math.lcm(4, 6)]
### datetime
from datetime import date, timedelta
answer = str(date(2024, 2, 28) + timedelta(days=2)) + date(2024, 2, 28).strftime('%A')
### strptime
from datetime import datetime
answer = datetime.strptime('2024-03-01', '%Y-%m-%d').toordinal()
### statistics
import statistics
answer = [statistics.mean([1, 2, 3, 4]), statistics.median([1, 5, 2])]
### collections
from collections import Counter, defaultdict, deque
answer = [Counter('banana').most_common(1)[0][1], sum(deque([1, 2, 3], maxlen=2))]
### functools
from functools import lru_cache, reduce
@lru_cache(None)
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
answer = [fib(80), reduce(lambda a, b: a * b, range(1, 6))]
### seeded random
import random
random.seed(5)
answer = [random.randint(1, 100) for _ in range(5)]
### print unicode
print('x² ≤ 4 → π ≈ 3.14 数学 😀')
answer = 'é'
### print many
for i in range(20): print(i, end=' ')
print()
answer = None
### stderr
import sys
print('to stderr', file=sys.stderr)
answer = 1
### main guard
def main():
    global answer
    answer = 33
if __name__ == '__main__':
    main()
### exception handled
try: 1 / 0
except ZeroDivisionError as e: answer = str(e)
### string methods
answer = sorted(set('mississippi'))[::-1]
### f-string and format
answer = f'{1234567.891:,.2f} {5:>3} {255:#x}'
### match
def f(x):
    match x:
        case [a, b]: return a + b
        case {'k': v}: return v
answer = [f([1, 2]), f({'k': 5})]
### walrus
answer = [y for x in range(5) if (y := x * x) > 3]
### bisect and heapq
import bisect, heapq
answer = [bisect.bisect([1, 3, 5], 3), heapq.nsmallest(2, [5, 1, 4])]
### regex
import re
answer = [int(x) for x in re.findall(r'[0-9]+', '3 apples and 12 pears')]
### json
import json
answer = json.loads(json.dumps({'a': [1, 2.5]}))
### copy
import copy
x = [[1], [2]]
y = copy.deepcopy(x)
y[0][0] = 9
answer = x
### sys.exit(0)
import sys
answer = 4
sys.exit(0)
### typing
from typing import List
def f(x: List[int]) -> int: return sum(x)
answer = f([1, 2])
### deep but legal recursion
import sys
sys.setrecursionlimit(3000)
def f(n): return 0 if n == 0 else 1 + f(n - 1)
answer = f(2500)
""")
BENIGN_SYMPY = _split("""
### sympy solve
from sympy import *
x = symbols('x')
answer = str(solve(x ** 2 - 5 * x + 6, x))
### sympy calculus
from sympy import *
x = symbols('x')
answer = [str(integrate(x ** 2, (x, 0, 3))), str(diff(sin(x), x)), str(limit(sin(x) / x, x, 0))]
### sympy number theory
from sympy import *
answer = [str(factorint(360)), isprime(97), list(divisors(28)), totient(36) == 12]
### sympy matrix
from sympy import Matrix
answer = str(Matrix([[1, 2], [3, 4]]).inv())
### sympy system
from sympy import *
x, y = symbols('x y')
answer = str(solve([x + y - 10, x - y - 2], [x, y]))
### sympy series and sums
from sympy import *
k, n, x = symbols('k n x')
answer = [str(summation(k, (k, 1, n))), str(series(exp(x), x, 0, 4)), str(simplify(sqrt(8)))]
### sympy geometry
from sympy import Point, Triangle
answer = str(Triangle(Point(0, 0), Point(4, 0), Point(0, 3)).area)
### sympy inequality
from sympy import *
x = symbols('x', real=True)
answer = str(solve_univariate_inequality(x ** 2 < 4, x))
### sympy combinatorics
from sympy.functions.combinatorial.numbers import nC, stirling
answer = [int(nC(5, 2)), int(stirling(5, 2))]
### sympy trigonometry
from sympy import *
answer = [str(cos(pi / 5)), str(trigsimp(sin(1) ** 2 + cos(1) ** 2)), str(nsimplify(0.75))]
### sympy diophantine and congruences
from sympy.ntheory.modular import crt
from sympy.ntheory import n_order
answer = [str(crt([3, 5], [2, 3])), int(n_order(3, 7))]
### sympy statistics
from sympy.stats import Die, P, E
X = Die('X', 6)
answer = [str(E(X)), str(P(X > 3))]
### numpy
import numpy as np
area = np.linalg.det(np.array([[2., 0.], [0., 3.]]))
answer = [float(np.mean([1, 2, 3])), int(np.cumsum([1, 2, 3])[-1]), float(area)]
### numpy polynomial and random
import numpy as np
rng = np.random.default_rng(0)
answer = [round(float(rng.normal()), 6), [round(float(x), 6) for x in np.roots([1, -3, 2])]]
""")
