"""How long a class takes to grade: the three commands of nbs/labs/README.md, as written there.

python tests/benchmarks/grading.py             # 30 copies of lab 1's solution
python tests/benchmarks/grading.py --copies 3
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from labs_grading import commands, hand_in

from rstar_nb.labs.course import copy_labs
from rstar_nb.store import machine


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--copies", type=int, default=30)
    args = parser.parse_args()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    about = machine()
    print(f"{args.copies} copies, {about['cpu']}, {about['cores']} cores")
    with TemporaryDirectory() as folder:
        teaching = Path(folder) / "teaching"
        copy_labs(teaching, teacher=True)
        for command in commands():
            start = time.perf_counter()
            done = subprocess.run(
                command,
                shell=True,
                cwd=teaching,
                env=dict(os.environ, PATH=path),
                capture_output=True,
                text=True,
            )
            print(f"{time.perf_counter() - start:6.0f} s  {command}")
            if "generate_assignment" in command:
                hand_in(teaching, "1_ucb", {f"s{i:02d}": {} for i in range(args.copies)})
        print(done.stdout.strip())
        print((teaching / "grades.csv").read_text().splitlines()[1])


if __name__ == "__main__":
    main()
