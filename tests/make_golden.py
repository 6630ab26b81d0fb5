"""Write tests/data/golden_trees.json again:  python tests/make_golden.py

Do this only when the search is meant to behave differently; the difference is what to review.
The last time: a finished program is graded when it has run (one node of the twelfth tree without a
PPM), and four trees with a PPM were added, in which the parent's count is the sum of its
children's, virtual visits included.
"""

import json
from pathlib import Path

from standin import golden_trees

from rstar_nb.search.tree import tree_to_json

if __name__ == "__main__":
    path = Path(__file__).parent / "data" / "golden_trees.json"
    path.write_text(json.dumps([tree_to_json(t) for t in golden_trees()], indent=0))
    print(path)
