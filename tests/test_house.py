"""The house: a wing imports only from wings before it, modules stay short, nothing is imported undeclared."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "rstar_nb"
WINGS = (
    "store executor answers problems policy search training reward measure evolve show cli".split()
)
MODULES = {
    ".".join(p.relative_to(PACKAGE).with_suffix("").parts): p
    for p in sorted(PACKAGE.rglob("*.py"))
    if p.name not in ("__init__.py", "_modidx.py")
}


def imported(path, name):
    """(module of the package, at the top level?) for each import of the package's own modules."""
    tree = ast.parse(path.read_text())
    top = set(tree.body)
    wing = name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = wing[: len(wing) - node.level + 1]
            yield ".".join([*base, *(node.module or "").split(".")]).strip("."), node in top
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rstar_nb."):
            yield node.module.removeprefix("rstar_nb."), node in top
        elif isinstance(node, ast.Import):
            for a in node.names:
                if a.name.startswith("rstar_nb."):
                    yield a.name.removeprefix("rstar_nb."), node in top


@pytest.mark.parametrize("name", MODULES)
def test_a_wing_imports_only_from_wings_before_it(name):
    wing = name.split(".")[0]
    later = [
        m
        for m, _ in imported(MODULES[name], name)
        if WINGS.index(m.split(".")[0]) > WINGS.index(wing)
    ]
    assert not later, f"{name} imports {later}"


def test_no_circle():
    edges = {n: {m for m, _ in imported(p, n)} & set(MODULES) for n, p in MODULES.items()}
    done, path = set(), []

    def visit(n):
        assert n not in path, " -> ".join([*path[path.index(n) :], n])
        if n in done:
            return
        path.append(n)
        for m in sorted(edges[n]):
            visit(m)
        path.pop()
        done.add(n)

    for n in edges:
        visit(n)
