"""Run the battery.

For each program: the verdict, what it could read, write, reach and leave behind, and the next
program's result.
"""

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
answer = [sum(range(10)), math.sqrt(9), random.random(), str(decimal.Decimal(1) / 3),
    sys.getrecursionlimit(), str(fractions.Fraction(1, 3) + 1), time.localtime(0).tm_hour,
    sorted(n for n in globals() if not n.startswith('__')), 7 + 1, sys.get_int_max_str_digits(),
    hash('a')]
print('canary')
"""


class Surroundings:
    """A folder with a secret and three sockets that listen: what a program could touch."""

    def __init__(self):
        self.dir = Path(tempfile.mkdtemp(prefix="rstar-battery-"))
        self.fill()
        self.name = f"rstar-battery-{os.getpid()}"
        self.tcp = socket.socket()
        self.tcp.bind(("127.0.0.1", 0))
        self.tcp.listen()
        self.udp = socket.socket(type=socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.unix = socket.socket(socket.AF_UNIX)
        self.unix.bind("\0" + self.name)
        self.unix.listen()

    def fill(self):
        """Lay the folder out anew."""
        shutil.rmtree(self.dir, ignore_errors=True)
        self.dir.mkdir()
        self.dir.chmod(0o777)
        texts = {"secret": SECRET, "victim": "x", "evil.py": "x = 1", "evil.npy": "x"}
        for name, text in texts.items():
            (self.dir / name).write_text(text)
            (self.dir / name).chmod(0o666)
        (self.dir / "folder").mkdir()
        (self.dir / "folder").chmod(0o777)
        (self.dir / "folder" / "x").write_text("x")
        for p in self.dir.rglob("*"):
            os.utime(p, (10**9, 10**9))
        self.before = self.seen()

    def seen(self):
        """The files of the folder (mode, size, time), and those written elsewhere."""
        files = {}
        for path in self.dir.rglob("*"):
            if not path.is_dir():
                stat = path.lstat()
                files[str(path.relative_to(self.dir))] = stat.st_mode, stat.st_size, stat.st_mtime
        pid = os.getpid()
        elsewhere = (
            f"/tmp/rstar-hostile-{pid}-written",
            f"/dev/shm/rstar-hostile-{pid}-written",
            f"/dev/shm/rstar-hostile-{pid}",
            "/written",
        )
        return files, sorted(path for path in elsewhere if os.path.exists(path))

    def write(self, source):
        """A program with its targets filled in."""
        targets = dict(
            dir=str(self.dir),
            host=str(os.getpid()),
            tcp=str(self.tcp.getsockname()[1]),
            udp=str(self.udp.getsockname()[1]),
            unix=self.name,
            root=str(Path(__file__).parent.parent.parent),
            secret=SECRET,
            half=SECRET[:3],
            other=SECRET[3:],
        )
        for name, value in targets.items():
            source = source.replace("{" + name + "}", value)
        return source

    def reached(self):
        """Names of the sockets that somebody has reached since the last call."""
        sockets = dict(tcp=self.tcp, udp=self.udp, unix=self.unix)
        ready = select.select(list(sockets.values()), [], [], 0)[0]
        for s in ready:
            if s is self.udp:
                s.recv(99)
            else:
                s.accept()[0].close()
        return [name for name, s in sockets.items() if s in ready]

    def changed(self):
        """Names of the files that have changed since the last call; all are restored."""
        files, elsewhere = self.seen()
        files_before, _ = self.before
        if (files, elsewhere) == self.before:
            return []
        names = {*files, *files_before}
        different = {n for n in names if files.get(n) != files_before.get(n)}
        for path in elsewhere:
            try:
                os.unlink(path)
            except OSError:
                pass
        self.fill()
        return sorted(different | set(elsewhere))

    def close(self):
        for s in self.tcp, self.udp, self.unix:
            s.close()
        shutil.rmtree(self.dir, ignore_errors=True)


def tree(pid):
    """All processes below `pid`."""
    below = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            for child in map(int, task.read_text().split()):
                below += [child, *tree(child)]
        except OSError:
            pass
    return below


class Peak(threading.Thread):
    """The most memory any process below this one has held, looked at all the time."""

    def __init__(self):
        super().__init__(daemon=True)
        self.bytes = 0
        self.done = threading.Event()
        self.start()

    def run(self):
        while not self.done.wait(0.01):
            for pid in tree(os.getpid()):
                try:
                    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                except (OSError, ValueError, IndexError):
                    continue
                self.bytes = max(self.bytes, pages * 4096)

    def since(self):
        """Bytes at the peak since the last call."""
        peak = self.bytes
        self.bytes = 0
        return peak


def next_program(ex, name):
    """The canary's result after the program of this name."""
    for k in range(3):  # on a busy machine an honest program may wait too long
        (after,) = ex.run([CANARY.replace("# canary", f"# {name} canary {k}")])
        if after.status != "timeout":
            break
    return after


def battery(programs=HOSTILE, **changes):
    """The isolation, and one record a program.

    `through` lists every way in which it got what it wanted.
    """
    settings = dict(workers=1, timeout=0.3, wall=0.8, memory=128, allow_weak=True) | changes
    surroundings = Surroundings()
    peak = Peak()
    records = []
    os.environ["RSTAR_SECRET"] = SECRET
    try:
        with Executor(**settings) as ex:
            (good,) = ex.run([CANARY])
            assert good.ok, good
            processes = len(tree(os.getpid()))
            for name, source in programs.items():
                zygote = ex.pids[0]
                (result,) = ex.run([surroundings.write(source)])
                through = []
                if (most := peak.since()) > (settings["memory"] + 200) << 20:
                    through.append(f"{most >> 20} MB of memory")
                if "BREACH" in json.dumps(result.answer):
                    through.append("its own word")
                if files := surroundings.changed():
                    through.append(f"files: {files}")
                if sockets := surroundings.reached():
                    through.append(f"reached: {sockets}")
                after = next_program(ex, name)
                spoilt = (after.answer, after.stdout) != (good.answer, good.stdout)
                if spoilt:
                    through.append(f"next program: {after.error or after.answer}")
                    ex.close()
                    ex.run([CANARY])
                running = len(tree(os.getpid()))
                if ex.pids[0] != zygote:
                    if not spoilt:
                        through.append("took the sandbox down")
                    processes = running
                if running > processes + 1:
                    through.append("left processes")
                    processes = running
                if result.seconds > settings["timeout"] + 1:
                    through.append("used more CPU than allowed")
                records.append(
                    dict(
                        name=name,
                        status=result.status,
                        error=result.error,
                        answer=result.answer,
                        through=through,
                    )
                )
            return str(ex.isolation), records
    finally:
        surroundings.close()
        peak.done.set()
        peak.join()


def show(record):
    """One line about one program, on standard error."""
    fields = record["name"], record["status"], str(record["error"])[:90], str(record["answer"])[:40]
    print(*fields, record["through"], sep=" | ", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Run the hostile programs and say what got through."
    )
    parser.add_argument("--without", default="", help="layers to leave out, separated by commas")
    parser.add_argument("--only", default="", help="kinds of programs, separated by commas")
    parser.add_argument("--verbose", action="store_true", help="one line a program")
    args = parser.parse_args()
    kinds = args.only.split(",") if args.only else [name.split(":")[0] for name in HOSTILE]
    chosen = {name: s for name, s in HOSTILE.items() if name.split(":")[0] in kinds}
    without = [layer for layer in args.without.split(",") if layer]
    isolation, records = battery(chosen, without=without)
    bad = [r for r in records if r["through"]]
    if args.verbose:
        for r in records:
            show(r)
    summary = dict(
        user="user" if os.getuid() else "root",
        without=args.without,
        programs=len(records),
        through=len(bad),
        which={r["name"]: r["through"] for r in bad},
        isolation=isolation,
    )
    print(json.dumps(summary))
