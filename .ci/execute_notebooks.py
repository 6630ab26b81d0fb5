"""Run notebooks top to bottom and save their outputs.

    python .ci/execute_notebooks.py                          # every notebook
    python .ci/execute_notebooks.py 04_ucb inside/store      # some
    python .ci/execute_notebooks.py --check --jobs 2         # run two at a time, save nothing
    python .ci/execute_notebooks.py --check --record         # keep the seconds for the index

Cells that begin with `#| slow` or `#| gpu` are left as they are, so a lesson can
show the command behind a recorded measurement without repeating it.
"""

import argparse
import json
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
RECORD = ROOT / "figures" / "records" / "lessons.json"
SKIP = ("slow", "gpu")


def is_skipped(cell):
    first = cell.source.lstrip().split("\n", 1)[0]
    return first.startswith("#|") and any(word in first.split() for word in SKIP)


class LessonClient(NotebookClient):
    """A client that leaves out the cells marked as slow or for a GPU."""

    def create_kernel_manager(self):
        """Sockets as files: two kernels that start together may choose the same TCP port."""
        manager = super().create_kernel_manager()
        manager.transport = "ipc"
        manager.ip = str(self.sockets / "kernel")
        return manager

    async def async_execute_cell(self, cell, cell_index, **kwargs):
        if cell.cell_type == "code" and is_skipped(cell):
            return cell
        return await super().async_execute_cell(cell, cell_index, **kwargs)

    execute_cell = None


def name_of(path):
    return path.relative_to(NBS).with_suffix("").as_posix()


def run(path: Path, save: bool) -> float:
    """Run a notebook; returns the seconds it took, the start of its kernel included."""
    nb = nbformat.read(path, 4)
    start = time.perf_counter()
    client = LessonClient(
        nb,
        timeout=900,
        kernel_name="python3",
        store_widget_state=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    with tempfile.TemporaryDirectory(prefix="lesson-") as folder:
        client.sockets = Path(folder)
        client.execute()
    seconds = time.perf_counter() - start
    if save:
        for cell in nb.cells:
            cell.metadata.pop("execution", None)
            for output in cell.get("outputs", []):
                # Without a kernel a widget view shows an error in place of its picture.
                if "image/png" in output.get("data", {}):
                    output.data.pop("application/vnd.jupyter.widget-view+json", None)
        nbformat.write(nb, path)
    print(f"{name_of(path)}: {seconds:.1f} s", flush=True)
    return seconds


def tried(path: Path, save: bool):
    """`run`; None, and the error printed, if a cell fails."""
    try:
        return run(path, save)
    except CellExecutionError as error:
        print(f"{name_of(path)}: {error}", flush=True)
        return None


def longest_first(paths):
    """The paths by the seconds that were recorded, so that no long one is left for the end."""
    known = json.loads(RECORD.read_text())["seconds"] if RECORD.exists() else {}
    return sorted(paths, key=lambda path: -known.get(name_of(path), 0))


def write_record(seconds):
    from rstar_nb.store import machine

    kept = json.loads(RECORD.read_text())["seconds"] if RECORD.exists() else {}
    kept |= {name: round(value, 1) for name, value in seconds.items()}
    existing = {name_of(path) for path in NBS.rglob("*.ipynb")}
    kept = {name: kept[name] for name in sorted(kept) if name in existing}
    RECORD.write_text(json.dumps(dict(machine=machine(), seconds=kept), indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*")
    parser.add_argument("--check", action="store_true", help="save nothing")
    parser.add_argument("--jobs", type=int, default=1, help="notebooks that run at a time")
    parser.add_argument("--record", action="store_true", help=f"seconds into {RECORD.name}")
    args = parser.parse_args()
    named = [NBS / f"{name.removesuffix('.ipynb')}.ipynb" for name in args.names]
    everything = ("*.ipynb", "inside/*.ipynb", "labs/source/*/*.ipynb")
    paths = named or [path for pattern in everything for path in sorted(NBS.glob(pattern))]
    paths = longest_first(paths)
    with ProcessPoolExecutor(args.jobs) as pool:
        seconds = dict(
            zip(paths, pool.map(partial(tried, save=not args.check), paths), strict=True)
        )
    failed = [name_of(path) for path, took in seconds.items() if took is None]
    if args.record:
        write_record({name_of(path): took for path, took in seconds.items() if took is not None})
    if failed:
        sys.exit(f"{len(failed)} of {len(paths)} notebooks failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
