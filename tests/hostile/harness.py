"""Run the battery: for each program the verdict, what it could read, write, reach and leave behind, and the next program's result."""

import argparse
import json
import os
import select
import shutil
import socket
import sys
import tempfile
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))
from rstar_nb.executor.pool import Executor

from tests.hostile.battery import HOSTILE

SECRET = "fa17h-" + str(os.getpid())
CANARY = """# canary program text
import math, random, decimal, sys, time, fractions
answer = [sum(range(10)), math.sqrt(9), random.random(), str(decimal.Decimal(1) / 3), sys.getrecursionlimit(), str(fractions.Fraction(1, 3) + 1),
    time.localtime(0).tm_hour, sorted(n for n in globals() if not n.startswith('__')), 7 + 1, sys.get_int_max_str_digits(), hash('a')]
print('canary')
"""


class Surroundings:
    """A folder with a secret and three sockets that listen: what a program could touch."""

    def __init__(self):
        self.dir = Path(tempfile.mkdtemp(prefix="rstar-battery-"))
        self.fill()
        self.tcp, self.udp, self.unix = (
            socket.socket(),
            socket.socket(type=socket.SOCK_DGRAM),
            socket.socket(socket.AF_UNIX),
        )
        self.name = f"rstar-battery-{os.getpid()}"
        for s, a in (
            (self.tcp, ("127.0.0.1", 0)),
            (self.udp, ("127.0.0.1", 0)),
            (self.unix, "\0" + self.name),
        ):
            s.bind(a)
        self.tcp.listen()
        self.unix.listen()

    def fill(self):
        shutil.rmtree(self.dir, ignore_errors=True)
        self.dir.mkdir()
        self.dir.chmod(0o777)
        for n, text in ("secret", SECRET), ("victim", "x"), ("evil.py", "x = 1"), ("evil.npy", "x"):
            (self.dir / n).write_text(text)
            (self.dir / n).chmod(0o666)
        (self.dir / "folder").mkdir()
        (self.dir / "folder").chmod(0o777)
        (self.dir / "folder" / "x").write_text("x")
        for p in self.dir.rglob("*"):
            os.utime(p, (10**9, 10**9))
        self.before = self.seen()

    def seen(self):
        files = {
            str(p.relative_to(self.dir)): (p.lstat().st_mode, p.lstat().st_size, p.lstat().st_mtime)
            for p in self.dir.rglob("*")
            if not p.is_dir()
        }
        return files, sorted(
            p
            for p in (
                f"/tmp/rstar-hostile-{os.getpid()}-written",
                f"/dev/shm/rstar-hostile-{os.getpid()}-written",
                f"/dev/shm/rstar-hostile-{os.getpid()}",
                "/written",
            )
            if os.path.exists(p)
        )

    def write(self, src):
        for k, v in dict(
            dir=str(self.dir),
            host=str(os.getpid()),
            tcp=str(self.tcp.getsockname()[1]),
            udp=str(self.udp.getsockname()[1]),
            unix=self.name,
            root=str(Path(__file__).parent.parent.parent),
            secret=SECRET,
            half=SECRET[:3],
            other=SECRET[3:],
        ).items():
            src = src.replace("{%s}" % k, v)
        return src

    def reached(self):
        ready = select.select([self.tcp, self.udp, self.unix], [], [], 0)[0]
        for s in ready:
            s.recv(99) if s is self.udp else s.accept()[0].close()
        return [
            n for n, s in dict(tcp=self.tcp, udp=self.udp, unix=self.unix).items() if s in ready
        ]

    def changed(self):
        now = self.seen()
        if now == self.before:
            return []
        diff = sorted(
            {k for k in {*now[0], *self.before[0]} if now[0].get(k) != self.before[0].get(k)}
            | set(now[1])
        )
        for p in now[1]:
            try:
                os.unlink(p)
            except OSError:
                pass
        self.fill()
        return diff

    def close(self):
        for s in self.tcp, self.udp, self.unix:
            s.close()
        shutil.rmtree(self.dir, ignore_errors=True)


def tree(pid):
    """All processes below `pid`."""
    out = []
    for t in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            out += [q for p in t.read_text().split() for q in (int(p), *tree(int(p)))]
        except OSError:
            pass
    return out


class Peak(threading.Thread):
    """The most memory any process below this one has held, looked at all the time."""

    def __init__(self):
        super().__init__(daemon=True)
        self.bytes, self.done = 0, threading.Event()
        self.start()

    def run(self):
        while not self.done.wait(0.01):
            for p in tree(os.getpid()):
                try:
                    self.bytes = max(
                        self.bytes, int(Path(f"/proc/{p}/statm").read_text().split()[1]) * 4096
                    )
                except (OSError, ValueError, IndexError):
                    pass

    def since(self):
        b, self.bytes = self.bytes, 0
        return b


def battery(programs=HOSTILE, **kw):
    """One record a program; `through` lists every way in which it got what it wanted."""
    s, records, peak = Surroundings(), [], Peak()
    kw = dict(workers=1, timeout=0.3, wall=0.8, memory=128, allow_weak=True) | kw
    os.environ["RSTAR_SECRET"] = SECRET
    try:
        with Executor(**kw) as ex:
            (good,) = ex.run([CANARY])
            assert good.ok, good
            still = set(tree(os.getpid()))
            for name, src in programs.items():
                pid = ex._pool[0].proc.pid
                (r,) = ex.run([s.write(src)])
                through = []
                if (m := peak.since()) > (kw["memory"] + 200) << 20:
                    through.append(f"{m >> 20} MB of memory")
                if "BREACH" in json.dumps(r.answer):
                    through.append("its own word")
                if f := s.changed():
                    through.append(f"files: {f}")
                if n := s.reached():
                    through.append(f"reached: {n}")
                for k in range(3):  # on a busy machine an honest program may wait too long
                    (after,) = ex.run([CANARY.replace("# canary", f"# {name} canary {k}")])
                    if after.status != "timeout":
                        break
                if (after.answer, after.stdout) != (good.answer, good.stdout):
                    through.append(f"next program: {after.error or after.answer}")
                    ex.close()
                    ex.run([CANARY])
                now = set(tree(os.getpid()))
                if ex._pool[0].proc.pid != pid:
                    if not any("next program" in t for t in through):
                        through.append("took the sandbox down")
                    still = now
                if len(now) > len(still) + 1:
                    through.append("left processes")
                    still = now
                if r.seconds > kw["timeout"] + 1:
                    through.append("used more CPU than allowed")
                records.append(
                    dict(
                        name=name, status=r.status, error=r.error, answer=r.answer, through=through
                    )
                )
            return str(ex.isolation), records
    finally:
        s.close()
        peak.done.set()
        peak.join()


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--without", default="")
    p.add_argument("--only", default="")
    p.add_argument("--verbose", action="store_true")
    a = p.parse_args()
    isolation, records = battery(
        {n: s for n, s in HOSTILE.items() if not a.only or n.split(":")[0] in a.only.split(",")},
        without=[l for l in a.without.split(",") if l],
    )
    bad = [r for r in records if r["through"]]
    if a.verbose:
        for r in records:
            print(
                r["name"],
                "|",
                r["status"],
                "|",
                str(r["error"])[:90],
                "|",
                str(r["answer"])[:40],
                "|",
                r["through"],
                file=sys.stderr,
            )
    print(
        json.dumps(
            dict(
                user="root" if os.getuid() == 0 else "user",
                without=a.without,
                programs=len(records),
                through=len(bad),
                which={r["name"]: r["through"] for r in bad},
                isolation=isolation,
            )
        )
    )
