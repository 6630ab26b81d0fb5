"""Write a finished run's files into another folder as `rstar evolve` would:

    python follow_run.py SOURCE FOLDER

A process of its own holds the folder's lock, writes one piece for each line on stdin, and says on
stdout what it wrote.
"""

import shutil
import sys
from pathlib import Path

from rstar_nb.store import RunLock


def lines(path):
    # str.splitlines would split at more than line ends.
    return list(open(path, encoding="utf-8")) if path.exists() else []


def pieces(source, folder):
    """Write piece after piece; yields what was written."""
    shutil.copy(source / "config.json", folder / "config.json")
    yield "config"
    metrics = lines(source / "metrics.jsonl")

    def add(k, name, text):
        with open(folder / f"round_{k}" / name, "a", encoding="utf-8") as f:
            f.write(text)

    for k, line in enumerate(metrics):
        (folder / f"round_{k}").mkdir()
        trees, times = (
            lines(source / f"round_{k}" / name) for name in ("search.jsonl", "times.jsonl")
        )
        if trees:
            half = len(trees) // 2
            # The last line is torn, as a reader may find it.
            add(k, "search.jsonl", "".join(trees[:half]) + trees[half][:40])
            yield f"round {k}, {half} trees"
            add(k, "search.jsonl", trees[half][40:] + "".join(trees[half + 1 :]))
            yield f"round {k}, {len(trees)} trees"
        for row in times:
            add(k, "times.jsonl", row)
            yield f"round {k}, times"
        with open(folder / "metrics.jsonl", "a") as f:
            f.write(line)
        yield f"round {k}, metrics"


if __name__ == "__main__":
    source, folder = map(Path, sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    with RunLock(folder):
        print("locked", flush=True)
        for _, piece in zip(sys.stdin, pieces(source, folder)):
            print(piece, flush=True)
