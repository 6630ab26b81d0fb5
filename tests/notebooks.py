"""The notebooks as they were saved, without the copies that JupyterLab keeps beside them."""

from pathlib import Path

NBS = Path(__file__).resolve().parent.parent / "nbs"
NOTEBOOKS = sorted(p for p in NBS.rglob("*.ipynb") if p.parent.name != ".ipynb_checkpoints")
