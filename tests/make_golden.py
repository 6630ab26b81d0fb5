"""Write tests/data/golden_trees.json again:  python tests/make_golden.py

Do this only when the search is meant to behave differently; the difference is what to review.
"""

import json
from pathlib import Path

from rstar_nb.search.tree import tree_to_json
from standin import grow_trees

if __name__ == "__main__":
    path = Path(__file__).parent / "data" / "golden_trees.json"
    path.write_text(json.dumps([tree_to_json(t) for t in grow_trees()], indent=0))
    print(path)
