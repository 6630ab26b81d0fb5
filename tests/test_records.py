"""What a notebook shows of a record is what the record says.

A cell depends on a record if it names a file under figures/, or uses a name that such a cell set.
These cells are run again, with the cells whose names they need, and what they print is compared
with the outputs saved in the notebook.
"""

import json
import os
import signal
import subprocess
import symtable
import sys
import traceback
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
SKIPPED = ("slow", "gpu")
LIMIT = 600  # seconds for the cells of a notebook


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
    """The outputs of some cells of a notebook, run in order in this process: {position: text}.

    A display that is updated later shows what it was updated to, as in a saved notebook.
    """
    from execnb.shell import CaptureShell

    class Shell(CaptureShell):
        def _run(self, *args, **options):
            done = super()._run(*args, **options)
            self.displays = done.display_objects
            return done

    os.chdir(path.parent)
    shell = Shell()
    cells, outputs, by_id = list(code_cells(path)), {}, {}
    for position in sorted(positions):
        name, source, _ = cells[position]
        all_outputs = shell.run(source)
        if shell.exc:
            raise RuntimeError(f"{path.stem}, cell {name}: {shell.exc}")
        displays = iter(shell.displays)
        outputs[position] = []
        for output in all_outputs:
            display = next(displays) if output["output_type"] == "display_data" else None
            display_id = (display.transient or {}).get("display_id") if display else None
            if display and display.update:
                # The shell shows a result once more, uncaptured: that display has no output here.
                by_id.get(display_id, {})["data"] = output["data"]
                continue
            by_id[display_id] = output
            outputs[position].append(output)
    return {position: text_of(some) for position, some in outputs.items()}


def serve():
    """Run notebooks' cells, each notebook in a fork of this process, which has imported a lot.

    A line of standard input is [notebook, positions, file for the outputs]; the answer is a line
    with the exit status. What cells print outside of their outputs goes to standard error.
    """
    import execnb.shell  # noqa: F401
    import pandas  # noqa: F401

    import rstar_nb.cli.main  # noqa: F401
    import rstar_nb.show.report  # noqa: F401

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        notebook, positions, file = json.loads(line)
        if (pid := os.fork()) == 0:
            status = 1
            try:
                signal.alarm(LIMIT)
                Path(file).write_text(json.dumps(run_cells(Path(notebook), positions)))
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        print(os.waitpid(pid, 0)[1], file=answers, flush=True)


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    """(notebook, positions) -> {position: text}, by one process that imports everything once."""
    folder = tmp_path_factory.mktemp("records")
    with open(folder / "errors", "w") as errors:
        server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )

    def run(path, positions):
        file = folder / f"{path.stem}.json"
        before = (folder / "errors").stat().st_size
        print(json.dumps([str(path), sorted(positions), str(file)]), file=server.stdin, flush=True)
        status = server.stdout.readline()
        assert status == "0\n", (folder / "errors").read_text()[before:][-2000:]
        return json.loads(file.read_text())

    yield run
    server.stdin.close()
    server.wait()


def notebooks():
    """The notebooks that read a record."""
    paths = [NBS / "index.ipynb", *sorted(NBS.glob("[0-9]*.ipynb")), *sorted(NBS.glob("inside/*"))]
    for path in paths:
        if path.suffix == ".ipynb" and slice_of(list(code_cells(path)))[0]:
            yield path


@pytest.mark.parametrize("path", list(notebooks()), ids=lambda p: p.stem)
def test_saved_outputs_are_those_of_the_records(path, runner):
    cells = list(code_cells(path))
    dependent, run = slice_of(cells)
    again = runner(path, run)
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
    serve()
