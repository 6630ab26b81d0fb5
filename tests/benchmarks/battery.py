"""What each layer buys: the battery as root and as an ordinary user, once per layer removed and once per layer alone.

python tests/benchmarks/battery.py [--root] [--user]     prints a Markdown table and writes figures/battery.json
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
KERNEL = ("uid", "namespaces", "landlock", "seccomp")


def run(user, without):
    cmd = [sys.executable, str(ROOT / "tests/hostile/harness.py"), "--without", ",".join(without)]
    if user == "user" and os.getuid() == 0:
        cmd = [str(ROOT / "tests/hostile/as_user.sh"), *cmd]
    p = subprocess.run(cmd, capture_output=True, text=True)
    return (
        json.loads(p.stdout.splitlines()[-1])
        if p.returncode == 0
        else dict(through=None, programs=None, which={}, isolation=p.stderr[-500:])
    )


def configs(user):
    yield "all layers", ()
    for l in ("limits", *KERNEL):
        if user == "root" or l != "uid":
            yield f"without {l}", (l,)
    for l in KERNEL:
        if user == "user" and l != "uid":
            yield f"limits and {l} alone", tuple(k for k in KERNEL if k != l)
    if user == "user":
        yield "limits alone", KERNEL


if __name__ == "__main__":
    users = [u for u in ("root", "user") if f"--{u}" in sys.argv] or (
        ["root", "user"] if os.getuid() == 0 else ["user"]
    )
    rows = []
    print("| user | layers | level | programs that got through |\n|---|---|---|---|")
    for user in users:
        for name, without in configs(user):
            r = run(user, without)
            rows.append(dict(r, user=user, layers=name))
            print(
                f"| {user} | {name} | {r['isolation'][:2]} | {r['through']} of {r['programs']} |",
                flush=True,
            )
    (ROOT / "figures").mkdir(exist_ok=True)
    (ROOT / f"figures/battery-{'-'.join(users)}.json").write_text(json.dumps(rows, indent=1))
