"""The repository's own promises: README, settings, notebooks."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "nbs").rglob("*.ipynb"))


def test_readme_is_the_rendered_index():
    spec = importlib.util.spec_from_file_location(
        "render_readme", ROOT / ".ci" / "render_readme.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "README.md").read_text() == module.render()


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


def figures_command():
    spec = importlib.util.spec_from_file_location("make_figures", ROOT / ".ci" / "make_figures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_figure_has_a_command():
    """Pictures are drawn by make_figures; a record says in figures/README.md which command writes it."""
    figures = ROOT / "figures"
    drawn = set(figures_command().PICTURES)
    assert {p.name for p in figures.iterdir() if p.suffix in (".png", ".svg", ".html")} == drawn
    commands = dict(
        re.findall(r"^\| `([^`]+)` \|.*\| `([^`]+)` \|$", (figures / "README.md").read_text(), re.M)
    )
    for path in sorted(p for p in figures.rglob("*") if p.is_file() and p.name != "README.md"):
        name = path.relative_to(figures).as_posix()
        command = next((c for pattern, c in commands.items() if Path(name).match(pattern)), None)
        assert command, f"figures/{name}: no command in figures/README.md"
        for script in re.findall(r"\S+\.py", command):
            assert (ROOT / script).is_file(), script


def test_figures_are_those_of_the_records(tmp_path):
    """Drawn again from the kept records they are the same pictures; fonts of another version may move a letter."""
    import numpy as np
    from matplotlib.image import imread

    make = figures_command()
    make.draw(make.FIGURES / "default_run", tmp_path)
    for name in make.PICTURES:
        kept, again = imread(make.FIGURES / name), imread(tmp_path / name)
        assert kept.shape == again.shape and np.abs(kept - again).mean() < 0.01, (
            f"figures/{name}: run python .ci/make_figures.py"
        )
