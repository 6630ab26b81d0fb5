"""Print the lowest versions that pyproject.toml allows.

    python .ci/lowest.py > lowest.txt && pip install -c lowest.txt .    of what the package needs
    pip install "$(python .ci/lowest.py setuptools)"                    of one distribution

Torch is left out of the first: of the versions in its range only the newest comes as a CPU build
everywhere, the others bring gigabytes of CUDA. What a dependency needs itself is resolved as usual.
"""

import re
import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
LEFT_OUT = ("torch",)


def pin(requirement: str) -> tuple[str, str]:
    """('name', 'name==1.2') of "name>=1.2,<2" or "name==1.2"; SystemExit without a lower bound."""
    match = re.match(r"([\w.-]+)(?:\[[\w,]+\])?[>=]=([\w.]+)", requirement)
    if not match:
        raise SystemExit(f"{requirement}: has no lower bound")
    return match[1], f"{match[1]}=={match[2]}"


def main(wanted):
    table = tomllib.loads(PYPROJECT.read_text())
    project = table["project"]
    if wanted:
        others = [*table["build-system"]["requires"], *project["optional-dependencies"]["dev"]]
        pins = (pin(text) for text in others if text.startswith(tuple(wanted)))
        print(*(text for name, text in pins if name in wanted), sep="\n")
    else:
        pins = map(pin, project["dependencies"])
        print(*(text for name, text in pins if name not in LEFT_OUT), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
