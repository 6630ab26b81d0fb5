"""What each layer buys: the battery, once per layer removed and once per layer alone.

python tests/benchmarks/battery.py [--root] [--user]

Runs as root and as an ordinary user where it can, prints a Markdown table, and writes
figures/battery-root-user.json (the names say who ran it).
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
KERNEL = ("uid", "namespaces", "landlock", "seccomp")


def run(user, without):
    """The harness's summary without these layers; its error in place of the level if it failed."""
    command = [sys.executable, str(ROOT / "tests/hostile/harness.py")]
    command += ["--without", ",".join(without)]
    if user == "user" and os.getuid() == 0:
        command = [str(ROOT / "tests/hostile/as_user.sh"), *command]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return dict(through=None, programs=None, which={}, isolation=done.stderr[-500:])
    return json.loads(done.stdout.splitlines()[-1])


def configurations(user):
    """(name, layers to leave out) for each row of the table."""
    yield "all layers", ()
    for layer in ("limits", *KERNEL):
        if user == "root" or layer != "uid":
            yield f"without {layer}", (layer,)
    if user == "user":
        for layer in KERNEL:
            if layer != "uid":
                yield f"limits and {layer} alone", tuple(k for k in KERNEL if k != layer)
        yield "limits alone", KERNEL


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for user in ("root", "user"):
        parser.add_argument(f"--{user}", action="store_true", help=f"run as {user}")
    args = parser.parse_args()
    users = [user for user in ("root", "user") if getattr(args, user)]
    if not users:
        users = ["user"] if os.getuid() else ["root", "user"]
    rows = []
    print("| user | layers | level | programs that got through |\n|---|---|---|---|")
    for user in users:
        for name, without in configurations(user):
            summary = run(user, without)
            rows.append(dict(summary, user=user, layers=name))
            through = f"{summary['through']} of {summary['programs']}"
            print(f"| {user} | {name} | {summary['isolation'][:2]} | {through} |", flush=True)
    record = ROOT / f"figures/battery-{'-'.join(users)}.json"
    record.parent.mkdir(exist_ok=True)
    record.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
