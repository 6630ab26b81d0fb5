"""Run notebooks top to bottom and save their outputs.

    python .ci/execute_notebooks.py                  # every notebook
    python .ci/execute_notebooks.py 04_ucb inside/store # some
    python .ci/execute_notebooks.py --check          # run every notebook, save nothing

Cells that begin with `#| slow` or `#| gpu` are left as they are, so a lesson can
show the command behind a recorded measurement without repeating it.
"""

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NBS = Path(__file__).resolve().parent.parent / "nbs"
SKIP = ("slow", "gpu")


def is_skipped(cell):
    first = cell.source.lstrip().split("\n", 1)[0]
    return first.startswith("#|") and any(word in first.split() for word in SKIP)


class LessonClient(NotebookClient):
    async def async_execute_cell(self, cell, cell_index, **kwargs):
        if cell.cell_type == "code" and is_skipped(cell):
            return cell
        return await super().async_execute_cell(cell, cell_index, **kwargs)

    execute_cell = None


def main(names):
    check = "--check" in names
    names = [n for n in names if n != "--check"]
    named = [NBS / f"{n.removesuffix('.ipynb')}.ipynb" for n in names]
    paths = named or sorted(NBS.glob("*.ipynb")) + sorted(NBS.glob("inside/*.ipynb"))
    for path in paths:
        nb = nbformat.read(path, 4)
        start = time.perf_counter()
        LessonClient(
            nb,
            timeout=900,
            kernel_name="python3",
            store_widget_state=False,
            resources={"metadata": {"path": str(path.parent)}},
        ).execute()
        if check:
            print(f"{path.relative_to(NBS)}: {time.perf_counter() - start:.1f} s", flush=True)
            continue
        for cell in nb.cells:
            cell.metadata.pop("execution", None)
            for output in cell.get("outputs", []):
                # Without a kernel a widget view shows an error in place of its picture.
                if "image/png" in output.get("data", {}):
                    output.data.pop("application/vnd.jupyter.widget-view+json", None)
        nbformat.write(nb, path)
        print(f"{path.relative_to(NBS)}: {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
