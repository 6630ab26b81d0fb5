"""What a notebook shows of a record is what the record says.

A cell depends on a record if it names a file under figures/, or uses a name that such a cell set.
These cells are run again, with the cells whose names they need, and what they print is compared
with the outputs saved in the notebook.
"""

import json
import os
import subprocess
import symtable
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
SKIPPED = ("slow", "gpu")


def code_cells(path):
    """(id, source, outputs) of the cells that run."""
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        first = source.lstrip().split("\n", 1)[0]
        skipped = first.startswith("#|") and any(word in SKIPPED for word in first.split())
        if cell["cell_type"] == "code" and not skipped:
            yield cell["id"], source, cell["outputs"]


def names(source):
    """(names that a cell sets, names that it uses) as variables of the notebook."""
    lines = source.splitlines()
    code = "\n".join("" if line.startswith(("%", "!")) else line for line in lines)
    top = symtable.symtable(code, "cell", "exec")
    is_set = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()}
    used, scopes = set(), [top]
    while scopes:
        scope = scopes.pop()
        scopes += scope.get_children()
        used |= {
            s.get_name()
            for s in scope.get_symbols()
            if s.is_referenced() and (scope is top or s.is_global())
        }
    return is_set, used


def slice_of(cells):
    """(cells that depend on a record, all cells needed to run them), as sets of positions."""
    setter, tainted, dependent, needed_by = {}, set(), set(), {}
    for position, (_, source, _) in enumerate(cells):
        is_set, used = names(source)
        needed_by[position] = {setter[name] for name in used if name in setter}
        if "figures/" in source or used & tainted:
            dependent.add(position)
            tainted |= is_set
        else:
            tainted -= is_set
        setter |= dict.fromkeys(is_set, position)
    run, todo = set(), set(dependent)
    while todo:
        position = todo.pop()
        run.add(position)
        todo |= needed_by[position] - run
    return dependent, run


def text_of(outputs):
    """What a cell printed and what it shows, as text; the streams of a cell joined."""
    printed = "".join("".join(o["text"]) for o in outputs if o["output_type"] == "stream")
    shown = [
        "".join(o["data"][kind])
        for o in outputs
        if "data" in o
        for kind in ("text/plain", "text/markdown")
        if kind in o["data"]
    ]
    return [printed.strip(), *shown]


def run_cells(path, positions):
    """The outputs of some cells of a notebook, run in order in this process: {position: text}."""
    from execnb.shell import CaptureShell

    os.chdir(path.parent)
    shell = CaptureShell()
    cells, outputs = list(code_cells(path)), {}
    for position in sorted(positions):
        name, source, _ = cells[position]
        outputs[position] = shell.run(source)
        if shell.exc:
            raise RuntimeError(f"{path.stem}, cell {name}: {shell.exc}")
    return {position: text_of(out) for position, out in outputs.items()}


def notebooks():
    """The notebooks that read a record."""
    paths = [NBS / "index.ipynb", *sorted(NBS.glob("[0-9]*.ipynb")), *sorted(NBS.glob("inside/*"))]
    for path in paths:
        if path.suffix == ".ipynb" and slice_of(list(code_cells(path)))[0]:
            yield path


@pytest.mark.parametrize("path", notebooks(), ids=lambda p: p.stem)
def test_saved_outputs_are_those_of_the_records(path):
    cells = list(code_cells(path))
    dependent, run = slice_of(cells)
    command = [sys.executable, __file__, str(path), json.dumps(sorted(run))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    again = json.loads(done.stdout.splitlines()[-1])
    for position in sorted(dependent):
        name, _, outputs = cells[position]
        assert again[str(position)] == text_of(outputs), (
            f"{path.stem}, cell {name}: run python .ci/execute_notebooks.py "
            f"{path.relative_to(NBS).with_suffix('')}"
        )


def test_cells_that_depend_on_a_record_are_told_from_others():
    sources = (
        "import json",
        "def rate(x):\n    return x / 2",
        "r = json.loads(open('../figures/records/a.json').read())",
        "[rate(x) for x in r]",
        "x = 3",
        "r = 5",
        "r + x",
    )
    assert slice_of([("", source, []) for source in sources]) == ({2, 3}, {0, 1, 2, 3})


if __name__ == "__main__":
    _, notebook, wanted = sys.argv
    print("\n" + json.dumps(run_cells(Path(notebook), json.loads(wanted))))
