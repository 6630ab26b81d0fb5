"""The labs: marks and hints, what learners get, and a small class graded by nbgrader itself."""

import contextlib
import csv
import io
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from labs_grading import LABS, commands, grade, grade_id, hand_in, read_lab, run_cell, with_answers
from labs_wrong import WRONG

from rstar_nb.labs.course import copy_labs, copy_lessons, lab_names, released

ROOT = Path(__file__).resolve().parent.parent

# Marks of 10 of each wrong submission.
MARKS = {
    "1_ucb": {
        "pending forgotten": 6.25,
        "only the child": 6.25,
        "virtual loss": 7.0,
        "division by zero": 7.75,
        "copied from the package": 6.25,
        "the k best": 8.5,
        "changes the children": 6.5,
    },
    "2_simulation": {
        "an unvisited child scores 0": 9.5,
        "greedy": 9.0,
        "counted from the root": 8.5,
        "root missed": 7.0,
        "rewards overwritten": 7.5,
        "copied from the package: no discount": 8.5,
        "one child": 8.5,
    },
    "3_bug_hunt": {
        "nothing mended": 6.0,
        "the root left out": 6.0,
        "the mean left in": 7.5,
        "the zero left in": 8.5,
        "nothing ends inside": 6.5,
        "no invariant for best": 9.0,
    },
    "4_escape_room": {
        "everything is denied": 8.75,
        "greedy cover": 9.0,
        "every layer that helps": 6.5,
        "an error is not caught": 8.0,
        "only PermissionError": 9.0,
        "does not try": 9.0,
    },
    "5_pairs": {
        "ties by place": 7.5,
        "no margin": 9.0,
        "last steps included": 9.0,
        "one wrong answer twice": 8.5,
        "unchecked is wrong": 9.0,
        "the wrong way round": 7.75,
        "copied from the package: nothing flipped": 8.5,
    },
    "6_sft_mask": {
        "shifted by one": 6.5,
        "question included": 7.5,
        "padding included": 8.0,
        "copied from the package: comments in full": 8.0,
        "mean of means": 8.5,
        "counted places": 8.5,
        "zero times infinity": 9.0,
    },
    "7_read_a_run": {
        "half widths added": 7.9,
        "standard error": 7.4,
        "straight line": 6.3,
        "floor forgotten": 9.25,
        "last ratio only": 8.75,
        "each level by itself": 8.5,
    },
}


def graded_cells(lab):
    return [c for c in read_lab(lab)["cells"] if c["metadata"].get("nbgrader", {}).get("grade")]


def solution(lab):
    """The names that a lab's set-up and its solution cells define."""
    names = {}
    for cell in read_lab(lab)["cells"]:
        about = cell["metadata"].get("nbgrader", {})
        if cell["cell_type"] == "code" and (about.get("solution") or grade_id(cell) == "setup"):
            run_cell("".join(cell["source"]), names)
    return names


# -- marks ------------------------------------------------------------------------------------


def test_there_are_seven_labs_of_ten_points():
    assert LABS == lab_names() and len(LABS) == 7 and set(LABS) == set(WRONG) == set(MARKS)
    for lab in LABS:
        points = [c["metadata"]["nbgrader"]["points"] for c in graded_cells(lab)]
        assert sum(points) == 10, (lab, points)
        text = "".join(read_lab(lab)["cells"][0]["source"])
        assert re.search(
            r"\*\*\d+ minutes\. Difficulty \d of 5, importance \d of 5\. 10 points", text
        )


@pytest.mark.parametrize("lab", LABS)
def test_the_solution_gets_all_points(lab):
    points, printed = grade(read_lab(lab))
    assert sum(points.values()) == 10, printed
    assert "hint" not in printed and "no picture" not in printed


@pytest.mark.parametrize("lab", LABS)
def test_the_released_lab_gets_none_and_runs_to_its_end(lab):
    answers = {
        grade_id(c): "..."
        for c in read_lab(lab)["cells"]
        if c["metadata"].get("nbgrader", {}).get("solution")
    }
    points, printed = grade(with_answers(read_lab(lab), answers))
    assert sum(points.values()) == 0, printed
    assert "Error" not in printed, printed


@pytest.mark.parametrize(
    "lab, name, answers, hint",
    [(lab, *wrong) for lab in LABS for wrong in WRONG[lab]],
    ids=[f"{lab}: {name}" for lab in LABS for name, *_ in WRONG[lab]],
)
def test_a_wrong_submission_gets_its_marks_and_its_hint(lab, name, answers, hint):
    points, printed = grade(with_answers(read_lab(lab), answers), demonstrations=False)
    assert round(sum(points.values()), 2) == MARKS[lab][name], (points, printed)
    assert hint in printed, printed


def test_there_are_five_wrong_submissions_for_each_lab():
    for lab in LABS:
        assert len(WRONG[lab]) >= 5 and {name for name, *_ in WRONG[lab]} == set(MARKS[lab])


# -- checks that cannot be talked round ----------------------------------------------------------

ALWAYS_EQUAL = """
class Equal(float):
    def __eq__(self, other):
        return True

return [Equal(0)] * len(children)
"""
HOSTILE = {
    "loops for ever": ("while True:\n    pass", 4.0, "it did not come back"),
    "loops and catches everything": (
        "while True:\n    try:\n        len(children)\n    except Exception:\n        pass",
        4.0,
        "it did not come back",
    ),
    "leaves the program": ("raise SystemExit", 4.0, "ends the program"),
    "equal to everything": (ALWAYS_EQUAL, 4.0, "hidden inputs right"),
    "returns nothing": ("...", 4.0, "let it end in `return`"),
    "calls the check's own code": (
        "from rstar_nb.labs.ucb import _puct\n\nreturn _puct(children, c)",
        4.0,
        "ValueError: that would be the right answer",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_function_gets_the_points_of_the_other_task_only(name):
    code, marks, message = HOSTILE[name]
    points, printed = grade(with_answers(read_lab("1_ucb"), {"puct_pending": code}))
    assert sum(points.values()) == marks and message in printed, (points, printed)


def test_a_hidden_check_shows_neither_inputs_nor_values():
    from rstar_nb.labs.ucb import Case, check_puct_pending, children_of

    names = {"puct_pending": lambda children, c=2.0: [0.125]}
    cases = [Case("a secret name", (children_of((31, 41, 0, 0.5)),), [59.25])]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert check_puct_pending(names, cases, 1, hidden=True) == 0
    for secret in ("secret", "31", "41", "59", "0.125"):
        assert secret not in printed.getvalue()


# -- one source: where a twist is neutral, the solution is the package's function ------------------


def test_lab_1_is_puct_where_nothing_is_under_way():
    from rstar_nb.search.ucb import puct

    names = solution("1_ucb")
    rows = [(2.0, 4, 0, 0.5), (-1.0, 4, 0, 0.3), (1.0, 1, 0, 0.2), (0.0, 0, 0, 0.1)]
    for c in (0.5, 2.0):
        mine = names["puct_pending"](names["children_of"](*rows), c)
        theirs = [puct(w / max(n, 1), n, 9, p, c) for w, n, _, p in rows]
        assert mine == pytest.approx(theirs)


def package_tree(nodes):
    """A search tree of the package from a lab's list of dicts."""
    from rstar_nb.search.tree import Node, Tree

    tree = Tree("lab", "?", [])
    for i, n in enumerate(nodes):
        children = [j for j, m in enumerate(nodes) if m["parent"] == i]
        about = dict(node_visits=n["node_visits"], value_sum=n["value_sum"], children=children)
        parent = -1 if n["parent"] is None else n["parent"]
        tree.nodes.append(Node(i, parent, n["step"], **about))
    return tree


def test_lab_2_selects_as_the_package_does():
    from rstar_nb.search.mcts import select

    names = solution("2_simulation")
    for nodes in (
        names["multiples_of_three"](),
        [*names["multiples_of_three"](), dict(step="x", parent=0, node_visits=0, value_sum=0.0)],
    ):
        mine = names["select"](nodes)
        assert mine[-1] == select(package_tree(nodes))


@pytest.mark.parametrize("lab", ["2_simulation", "3_bug_hunt"])
def test_labs_2_and_3_back_up_as_the_package_does(lab):
    from rstar_nb.search.mcts import backup

    names = solution(lab)
    nodes = names["multiples_of_three"]() if lab == "2_simulation" else names["new_tree"]()
    theirs = package_tree(nodes)
    for path, reward in (([0, 1, 2], 1.0), ([0, 1], -1.0)):
        path = [0, 1, 4] if lab == "2_simulation" and len(path) == 3 else path
        backup(theirs, path[-1], reward)
        names["backup"](nodes, path, reward)
    for mine, n in zip(nodes, theirs.nodes, strict=True):
        assert (mine["node_visits"], mine["value_sum"]) == (n.node_visits, n.value_sum)


def test_lab_4_predicts_what_the_layers_of_this_machine_do():
    from rstar_nb.labs.escape_room import try_layers

    predicted = solution("4_escape_room")["predicted"]
    for layer, found in try_layers().items():
        assert found == predicted[layer], layer


def test_lab_5_pairs_and_loses_as_the_package_does():
    import torch

    from rstar_nb.reward.pairs import final_pairs, pairwise_loss, step_pairs
    from rstar_nb.search.tree import Node, Tree

    names = solution("5_pairs")
    # A fork of four steps, no two with one mean reward, each followed by finished programs.
    ends = dict(a=[1.0] * 3, b=[1.0, -1.0], c=[-1.0], d=[1.0, -1.0, -1.0])
    tree = Tree("lab", "?", [Node(0, -1, children=[])])
    children = []
    for step, rewards in ends.items():
        i = len(tree.nodes)
        tree.nodes[0].children.append(i)
        about = dict(node_visits=len(rewards), value_sum=sum(rewards))
        tree.nodes.append(Node(i, 0, step, children=[], **about))
        children.append(dict(about, step=step, right=1 in rewards, wrong=-1 in rewards, ends=False))
        for k, reward in enumerate(rewards):
            tree.nodes[i].children.append(len(tree.nodes))
            end = dict(answer=f"{step}{k}", correct=reward > 0, node_visits=1, value_sum=reward)
            tree.nodes.append(Node(len(tree.nodes), i, f"answer = '{step}{k}'", **end))
    theirs = [(p["better"][-1], p["worse"][-1]) for p in step_pairs(tree)]
    assert names["step_pairs"](children) == theirs and theirs

    from rstar_nb.search.tree import trajectories

    programs = [
        dict(x, text=x["steps"][-1], answer=x["answer"])
        for x in sorted(trajectories(tree), key=lambda x: x["average_q"])
    ]
    theirs = [(p["better"][-1], p["worse"][-1]) for p in final_pairs(tree)]
    assert set(names["final_pairs"](programs)) <= {
        (b["text"], w["text"])
        for b in programs
        for w in programs
        if b["correct"] and not w["correct"]
    }
    assert len(names["final_pairs"](programs)) == len(theirs) == 4

    better, worse = [0.9, -0.2, 0.4], [-0.7, 0.3, 0.4]
    right = pairwise_loss(torch.tensor(better), torch.tensor(worse)).item()
    assert names["pairwise_loss"](better, worse) == pytest.approx(right, rel=1e-5)


def test_lab_6_has_the_loss_of_the_package_where_comments_count_in_full():
    import torch

    from rstar_nb.policy.tiny import tiny_model
    from rstar_nb.training.sft import solution_loss

    names = solution("6_sft_mask")
    torch.manual_seed(0)
    model = tiny_model(40).eval()
    encoded = [([5, 6, 7, 8, 9, 10, 11], 3), ([12, 13, 14, 15], 1)]
    logprobs, weights = [], []
    with torch.inference_mode():
        for ids, n_question in encoded:
            logp = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
            kinds = ["question"] * n_question + ["comment"] + ["code"] * (len(ids) - n_question - 1)
            row = [(str(i), kind) for i, kind in zip(ids, kinds, strict=True)]
            logprobs.append([logp[t, i].item() for t, i in enumerate(ids[1:])] + [-math.inf])
            weights.append(names["token_weights"](row))
        theirs, n = solution_loss(model, encoded)
    assert sum(map(sum, weights)) == n
    assert names["weighted_loss"](logprobs, weights) == pytest.approx(theirs.item(), rel=1e-4)


def test_lab_7_has_the_interval_of_the_package_where_one_rate_is_known():
    from rstar_nb.measure.intervals import wilson

    known = dict(n=10**9, correct=5 * 10**8)
    gain, half = solution("7_read_a_run")["difference"](known, dict(n=5000, correct=3000))
    low, high = wilson(3000, 5000)
    assert gain == pytest.approx(0.1) and half == pytest.approx((high - low) / 2, abs=1e-4)


def test_lab_7_reads_the_record():
    names = solution("7_read_a_run")
    total = sum(names["level_gains"](*(names["counts"][k]["by_level"] for k in (0, -1))).values())
    first, last = (names["counts"][k] for k in (0, -1))
    assert total == pytest.approx((last["correct"] - first["correct"]) / last["n"])


# -- what learners get --------------------------------------------------------------------------


@pytest.mark.parametrize("lab", LABS)
def test_released_is_what_nbgrader_releases(lab):
    nbformat = pytest.importorskip("nbformat")
    preprocessors = pytest.importorskip("nbgrader.preprocessors")
    clear = preprocessors.ClearSolutions(code_stub={"python": "# YOUR CODE HERE\n..."})
    theirs = nbformat.reads(json.dumps(read_lab(lab)), 4)
    for step in (clear, preprocessors.ClearHiddenTests()):
        theirs, _ = step.preprocess(theirs, {})
    mine = nbformat.reads(json.dumps(released(read_lab(lab))), 4)
    assert [c.source for c in mine.cells] == [c.source for c in theirs.cells]


def test_lessons_and_labs_are_copied(tmp_path):
    assert copy_labs(tmp_path / "labs") == 7
    assert copy_lessons(tmp_path / "course") > 50
    text = "".join(p.read_text() for p in (tmp_path / "labs").rglob("*.ipynb"))
    for hidden in ("BEGIN SOLUTION", "HIDDEN TESTS", "by_mean", "nobody has checked"):
        assert hidden not in text
    assert not (tmp_path / "course" / "nbs" / "labs").exists()
    assert (tmp_path / "course" / "figures" / "records").is_dir()
    with pytest.raises(FileExistsError, match="not empty"):
        copy_labs(tmp_path / "labs")


def test_the_commands_copy_and_say_what(tmp_path):
    from typer.testing import CliRunner

    from rstar_nb.cli.main import app

    for name, said in (("labs", "7 labs in"), ("lessons", "notebooks in")):
        done = CliRunner().invoke(app, [name, str(tmp_path / name)])
        assert done.exit_code == 0 and said in done.output, done.output


# -- a class ------------------------------------------------------------------------------------

PUCT = "def puct_pending(children, c=2.0):\n"
REPLACED = """    return [0.0]


import rstar_nb.labs.checks
import rstar_nb.labs.ucb


def check_puct_pending(*args, points, **kwargs):
    return points


rstar_nb.labs.ucb.check_puct_pending = check_puct_pending
rstar_nb.labs.checks.check = check_puct_pending
"""
FAKED = """    return [0.0]


import sys
import types

fake = types.ModuleType("rstar_nb.labs.ucb")
fake.check_puct_pending = lambda *args, points, **kwargs: points
sys.modules["rstar_nb.labs.ucb"] = fake
"""
PLAIN = """    total = sum(n["node_visits"] for n in children)
    q = [n["value_sum"] / max(n["node_visits"], 1) for n in children]
    bonus = [c * n["prior"] * sqrt(max(total, 1)) / (1 + n["node_visits"]) for n in children]
    return [a + b for a, b in zip(q, bonus)]
"""
# What stands in place of `puct_pending`, and the marks; None = cannot be graded.
CLASS = {
    "ada": (None, 10.0),
    "ben": (PUCT + PLAIN, 6.25),
    "eve": (PUCT + REPLACED, 4.0),
    "fay": (PUCT + FAKED, 4.0),
    "ida": (PUCT + "    while True:\n        pass\n", 4.0),
    "kim": (PUCT + "    import os\n\n    os._exit(0)\n", None),
    # Without `puct_pending` the second task's cell fails as well.
    "leo": ("def puct_pending(children, c=2.0:\n    return 1\n", 0.0),
}


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """A class's folder after the three commands, and what each printed."""
    pytest.importorskip("nbgrader")
    teaching = tmp_path_factory.mktemp("class") / "teaching"
    copy_labs(teaching, teacher=True)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    python_path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = dict(os.environ, PATH=path, PYTHONPATH=python_path)
    submissions = {
        name: {"puct_pending": source} if source else {} for name, (source, _) in CLASS.items()
    }
    printed = []
    for command in commands():
        done = subprocess.run(
            command, shell=True, cwd=teaching, env=env, capture_output=True, text=True
        )
        printed.append(done.stdout + done.stderr)
        if "generate_assignment" in command:
            hand_in(teaching, "1_ucb", submissions)
    return teaching, printed


def test_three_commands_grade_a_class(graded):
    teaching, printed = graded
    assert len(printed) == 3
    with open(teaching / "grades.csv", newline="") as file:
        marks = {row["student"]: row["1_ucb"] for row in csv.DictReader(file)}
    right = {student: "" if m is None else str(m) for student, (_, m) in CLASS.items()}
    assert marks == right, printed
    assert "not graded: kim, 1_ucb" in printed[2]
    assert re.search(r"hidden_puct_pending +5 of 6", printed[2]), printed[2]


def test_feedback_shows_no_hidden_check(graded):
    teaching, _ = graded
    pages = {p.parent.parent.name: p.read_text() for p in teaching.glob("feedback/*/*/*.html")}
    assert set(pages) == set(CLASS) - {"kim"}
    for student, page in pages.items():
        for secret in ("HIDDEN TESTS", "many under way", "0.276923", "by_mean", "sys.modules["):
            shown = secret in page and not (student == "fay" and secret == "sys.modules[")
            assert not shown, (student, secret)
    assert "4 of 4 hidden inputs right" in pages["ada"]
    assert "rollouts under way appear nowhere" in pages["ben"]
