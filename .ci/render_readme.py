"""Render nbs/index.ipynb to README.md.  `--check` only says whether they are equal."""

import re
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent


def render() -> str:
    nb = nbformat.read(ROOT / "nbs" / "index.ipynb", 4)
    cells = []
    for cell in nb.cells:
        first = cell.source.split("\n", 1)[0].strip()
        if first == "#| hide":
            continue
        if first == "#| hide_input":  # what the cell printed is Markdown
            cell = nbformat.v4.new_markdown_cell("".join(o.get("text", "") for o in cell.outputs))
        cells.append(cell)
    nb.cells = cells
    text, _ = MarkdownExporter().from_notebook_node(nb)
    text = text.replace("](../figures/", "](figures/")
    text = re.sub(r"\]\(((?:inside/)?\w+\.ipynb|labs/README\.md)\)", r"](nbs/\1)", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    if "--check" in sys.argv:
        if readme.read_text() != render():
            sys.exit("README.md differs from nbs/index.ipynb; run: python .ci/render_readme.py")
    else:
        readme.write_text(render())
