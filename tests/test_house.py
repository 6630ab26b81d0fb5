"""The house: wings import one way, modules and cells stay short, lessons build on earlier ones."""

import ast
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from notebooks import NOTEBOOKS

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "rstar_nb"
WINGS = (
    "store executor answers problems policy search training reward measure evolve show labs cli"
).split()
MODULES = {
    ".".join(p.relative_to(PACKAGE).with_suffix("").parts): p
    for p in sorted(PACKAGE.rglob("*.py"))
    if p.name not in ("__init__.py", "_modidx.py")
}
LESSONS = [p for p in NOTEBOOKS if p.parent.name == "nbs" and p.name != "index.ipynb"]
SCRIPTS = sorted([*(ROOT / "tests").rglob("*.py"), *(ROOT / ".ci").glob("*.py")])

LONG_MODULE = 300  # lines: above this a module should be cut
LONGEST_MODULE = 350  # above this it must be
WIDEST = 100  # characters of a line
LONGEST_CELL = 25  # lines of a code cell in a lesson


def cells_of(path, kind):
    """(id, source) of each cell of one kind."""
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == kind:
            yield cell.get("id"), "".join(cell["source"])


# -- imports ----------------------------------------------------------------------------------


def imported(path, name):
    """Names of the package's own modules that a module imports, wherever in it."""
    wing = name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = wing[: len(wing) - node.level + 1]
            yield ".".join([*base, *(node.module or "").split(".")]).strip(".")
        elif isinstance(node, ast.ImportFrom) and node.module == "rstar_nb":
            yield from (a.name for a in node.names if a.name in WINGS)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rstar_nb."):
            module = node.module.removeprefix("rstar_nb.")
            submodules = [f"{module}.{a.name}" for a in node.names]
            yield from [m for m in submodules if m in MODULES] or [module]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("rstar_nb."):
                    yield alias.name.removeprefix("rstar_nb.")


@pytest.mark.parametrize("name", MODULES)
def test_a_wing_imports_only_from_wings_before_it(name):
    place = WINGS.index(name.split(".")[0])
    modules = set(imported(MODULES[name], name))
    later = [m for m in modules if WINGS.index(m.split(".")[0]) > place]
    assert not later, f"{name} imports {later}"


def circle(edges):
    """A list of names that leads back to its first one, or None."""
    done, path = set(), []

    def visit(name):
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return None
        path.append(name)
        for other in sorted(edges[name]):
            if way := visit(other):
                return way
        path.pop()
        done.add(name)
        return None

    return next(filter(None, map(visit, edges)), None)


def test_no_circle():
    edges = {name: set(imported(path, name)) & set(MODULES) for name, path in MODULES.items()}
    assert not circle(edges)


def test_a_circle_is_noticed():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None


def test_labs_import_little():
    """A lab begins at once: its checks need neither torch nor the models."""
    code = "import sys; from rstar_nb.labs import {}; print('torch' in sys.modules)"
    labs = sorted(p.stem for p in (PACKAGE / "labs").glob("*.py") if p.stem != "__init__")
    done = subprocess.run(
        [sys.executable, "-c", code.format(", ".join(labs))],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "False\n", done.stderr


def test_every_wing_says_in_one_line_what_it_holds():
    for wing in WINGS:
        init = PACKAGE / wing / "__init__.py"
        if not init.parent.is_dir():  # the store is a single module
            continue
        body = ast.parse(init.read_text()).body
        docstring = ast.get_docstring(ast.parse(init.read_text())) or ""
        assert docstring.endswith(".") and "\n" not in docstring, f"{wing}: no one-line docstring"
        assert len(body) == 1, f"{wing}/__init__.py holds more than its docstring"


# -- length and width -------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_no_module_is_long(name):
    length = len(MODULES[name].read_text().splitlines())
    assert length <= LONGEST_MODULE, f"{name}: {length} lines; cut its notebook"
    if length > LONG_MODULE:
        warnings.warn(f"{name} has {length} lines, above {LONG_MODULE}", stacklevel=1)


def too_wide(text):
    """(line number, width) of each line that is too wide, apart from those that nbdev writes."""
    generated = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("# %% "):  # where a cell begins; `auto` is the list of public names
            generated = line.startswith("# %% auto")
        elif len(line) > WIDEST and not generated:
            yield number, len(line)


@pytest.mark.parametrize(
    "path", [*MODULES.values(), *SCRIPTS], ids=lambda p: str(p.relative_to(ROOT))
)
def test_no_line_of_code_is_wide(path):
    wide = list(too_wide(path.read_text()))
    assert not wide, f"{path.relative_to(ROOT)}: (line, width) {wide}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_no_line_of_a_cell_is_wide(path):
    wide = [(name, line) for name, source in cells_of(path, "code") for line in too_wide(source)]
    assert not wide, f"{path.name}: (cell, (line, width)) {wide}"


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_no_cell_of_a_lesson_is_long(path):
    lengths = {name: len(source.splitlines()) for name, source in cells_of(path, "code")}
    long = {name: length for name, length in lengths.items() if length > LONGEST_CELL}
    assert not long, f"{path.name}: cell: lines {long}; cut it or move it to an inside notebook"


# -- the order of the course ------------------------------------------------------------------


def needed(text):
    """Paths of the notebooks in the sentence of a notebook that begins with "You need"."""
    sentences = re.findall(r"You need\b.*?\.(?=\s|$)", text, re.S)
    return [link for s in sentences for link in re.findall(r"\]\(([\w./]+\.ipynb)\)", s)]


def needs(path):
    """The notebooks that a notebook says one needs before it."""
    text = "\n\n".join(source for _, source in cells_of(path, "markdown"))
    return [(path.parent / link).resolve() for link in needed(text)]


def lessons_needed(path, seen=frozenset()):
    """The lessons that a notebook needs, also by way of inside notebooks."""
    for other in needs(path):
        if other in LESSONS:
            yield other
        elif other not in seen:
            yield from lessons_needed(other, seen | {other})


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_a_lesson_needs_only_lessons_before_it(path):
    later = {other.stem for other in lessons_needed(path) if other.name >= path.name}
    assert not later, f"{path.stem} needs {later}"


def test_prerequisites_are_read():
    text = "You need [a](01_a.ipynb) and [b](inside/b.ipynb). It runs long.\n\nSee [c](03_c.ipynb)."
    assert needed(text) == ["01_a.ipynb", "inside/b.ipynb"]
    assert any(map(needs, LESSONS))


@pytest.mark.parametrize(
    "path", [p for p in NOTEBOOKS if p.parent.name == "inside"], ids=lambda p: p.stem
)
def test_an_inside_notebook_says_which_lesson_uses_it(path):
    text = "\n".join(source for _, source in cells_of(path, "markdown"))
    assert re.search(r"\]\(\.\./\d\d_\w+\.ipynb\)", text), f"{path.stem}: no link to a lesson"
