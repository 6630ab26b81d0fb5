"""Render nbs/index.ipynb to README.md.  `--check` only says whether they are equal."""
import re, sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent


def render() -> str:
    nb = nbformat.read(ROOT / "nbs" / "index.ipynb", 4)
    for cell in nb.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if "text" in o or "text/plain" in o.get("data", {})]
    nb.cells = [c for c in nb.cells if not c.source.startswith("#| hide")]
    text, _ = MarkdownExporter().from_notebook_node(nb)
    text = text.replace("](../figures/", "](figures/")
    text = re.sub(r"\]\((\w+\.ipynb)\)", r"](nbs/\1)", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    if "--check" in sys.argv:
        if readme.read_text() != render():
            sys.exit("README.md differs from nbs/index.ipynb; run: python .ci/render_readme.py")
    else:
        readme.write_text(render())
