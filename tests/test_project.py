"""The repository's own promises: README, settings, notebooks."""
import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))


def test_readme_is_the_rendered_index():
    spec = importlib.util.spec_from_file_location("render_readme", ROOT / ".ci" / "render_readme.py")
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
    text = "\n".join("".join(c["source"]) for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "markdown")
    planned = {"11_deep_thinking.ipynb", "12_why_it_works.ipynb", "13_one_gpu.ipynb"}
    for target in re.findall(r"\]\(([\w./]+)\)", text):
        assert target in planned or (path.parent / target).exists(), target


def test_the_pictures_of_the_readme_exist():
    for target in re.findall(r"!\[[^\]]*\]\((\S+)\)", (ROOT / "README.md").read_text()): assert (ROOT / target).is_file(), target


def test_versions_agree():
    version = re.search(r'version = "(.+)"', (ROOT / "pyproject.toml").read_text())[1]
    assert f"version = {version}\n" in (ROOT / "settings.ini").read_text() and version in (ROOT / "rstar_nb" / "__init__.py").read_text()
