"""A lab graded in this process, by the rules of nbgrader: its cells one after another."""

import ast
import contextlib
import io
import json
import re
from pathlib import Path

from rstar_nb.labs.checks import time_limit

SOURCE = Path(__file__).resolve().parent.parent / "nbs" / "labs" / "source"
LABS = sorted(p.name for p in SOURCE.iterdir() if p.is_dir())
CELL_SECONDS = 15  # of CPU; nbgrader has a limit of its own for a cell
SOLUTION = re.compile(r"[^\n]*### BEGIN SOLUTION.*?### END SOLUTION", re.S)


def read_lab(lab):
    """The teacher's copy of a lab."""
    return json.loads((SOURCE / lab / f"{lab}.ipynb").read_text())


def grade_id(cell):
    return cell["metadata"].get("nbgrader", {}).get("grade_id")


def with_answers(notebook, answers):
    """A copy with the solution of some cells replaced: {grade_id: text in place of the region}."""
    notebook = json.loads(json.dumps(notebook))
    known = {grade_id(c): c for c in notebook["cells"]}
    for name, text in answers.items():
        source = "".join(known[name]["source"])
        indent = re.search(r"( *)### BEGIN SOLUTION", source)[1]
        lines = [indent + line if line else line for line in text.strip("\n").split("\n")]
        begin, end = SOLUTION.search(source).span()
        known[name]["source"] = source[:begin] + "\n".join(lines) + source[end:]
    return notebook


def run_cell(source, names):
    """Run a cell; returns the value of its last expression, None without one."""
    body = ast.parse(source).body
    value = None
    if body and isinstance(body[-1], ast.Expr):
        last = ast.Expression(body.pop().value)
        exec(compile(ast.Module(body, []), "<cell>", "exec"), names)
        return eval(compile(last, "<cell>", "eval"), names)
    exec(compile(ast.Module(body, []), "<cell>", "exec"), names)
    return value


def is_shown_only(about):
    """Is this a locked cell that neither sets up nor counts?"""
    return about.get("locked") and not about.get("grade") and about.get("grade_id") != "setup"


def grade(notebook, demonstrations=True):
    """({grade_id of a check: points}, all that was printed)."""
    names = {"__name__": "__main__"}
    points = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for cell in notebook["cells"]:
            if cell["cell_type"] != "code":
                continue
            about = cell["metadata"].get("nbgrader", {})
            if not demonstrations and is_shown_only(about):
                continue
            try:
                with time_limit(CELL_SECONDS):
                    value = run_cell("".join(cell["source"]), names)
                error = None
            except KeyboardInterrupt:
                raise
            except BaseException as e:  # a kernel outlives SystemExit, and so does the batch
                value, error = None, e
            if about.get("grade"):
                if error:
                    print(f"{about['grade_id']}: {type(error).__name__}: {error}")
                full = value is None and error is None
                points[about["grade_id"]] = about["points"] if full else float(value or 0)
            elif error:
                print(f"cell {about.get('grade_id')}: {type(error).__name__}: {error}")
    return points, printed.getvalue()


# -- with nbgrader ------------------------------------------------------------------------------


def commands():
    """The commands of the teacher's page that grade a class, as written there."""
    blocks = re.findall(r"```sh\n(.*?)```", (SOURCE.parent / "README.md").read_text(), re.S)
    return [b.strip() for b in blocks if re.match(r"nbgrader (generate|zip_collect)", b)]


def hand_in(teaching, lab, submissions):
    """Put submissions where the teacher's page says they go.

    `submissions` is {student: {grade_id: source of the cell}}; other cells are the solution's.
    """
    archive = teaching / "downloaded" / lab / "archive"
    archive.mkdir(parents=True)
    given = json.loads((teaching / "release" / lab / f"{lab}.ipynb").read_text())
    right = {grade_id(c): c["source"] for c in read_lab(lab)["cells"]}
    for student, sources in submissions.items():
        notebook = json.loads(json.dumps(given))
        for cell in notebook["cells"]:
            if cell["metadata"].get("nbgrader", {}).get("solution"):
                cell["source"] = sources.get(grade_id(cell), right[grade_id(cell)])
        (archive / f"{student}_{lab}.ipynb").write_text(json.dumps(notebook))
