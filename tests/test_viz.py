"""Static pictures of trees: layout promises, what is shown, hostile text."""

import base64
import json
import random
import re
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from notebooks import NBS, NOTEBOOKS

from rstar_nb.search.mcts import backup
from rstar_nb.search.tree import Node, Tree, add_children
from rstar_nb.show.labels import difference, marked, node_label, plain
from rstar_nb.show.layout import best_end, children_of, path_to, tidy_layout, visible_nodes
from rstar_nb.show.trees import show_tree, show_trees, tree_text


def random_tree(n, seed=0, widest=6):
    rng, t = random.Random(seed), Tree("random", "any question")
    while len(t.nodes) < n:
        leaf = rng.choice([x.id for x in t.nodes if x.children is None])
        add_children(
            t,
            leaf,
            [
                f"# step {rng.randrange(100)} of {rng.randrange(10**6)}\nx = {rng.random():.2f}"
                for _ in range(rng.randrange(1, widest))
            ],
        )
    for n in t.nodes[1:]:
        if n.children is None and rng.random() < 0.3:
            n.step, n.answer, n.correct = "answer = 12", 12, rng.random() < 0.3
            backup(t, n.id, 1.0 if n.correct else -1.0)
        elif n.children is None and rng.random() < 0.2:
            n.status, n.error = "error", "NameError: name 'y' is not defined"
    return t


@given(st.integers(1, 300), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_layout_promises(n, seed):
    t = random_tree(n, seed)
    place = tidy_layout(t)
    assert set(place) == set(range(len(t.nodes)))
    taken = {}
    for i, (x, y) in place.items():
        taken.setdefault(x, []).append(y)
        kids = children_of(t)[i]
        if kids:
            assert y == pytest.approx((place[kids[0]][1] + place[kids[-1]][1]) / 2)
            assert all(place[c][0] == x + 1 for c in kids)
            rows = [place[c][1] for c in kids]
            assert rows == sorted(rows)
        else:
            taken.setdefault(x + 1, []).append(y)
    for rows in taken.values():
        rows.sort()
        assert all(b - a > 1 - 1e-6 for a, b in zip(rows, rows[1:]))
    assert min(y for _, y in place.values()) >= -1e-9


def test_deep_chain_needs_no_recursion():
    t = Tree("chain", "q")
    for i in range(3000):
        add_children(t, i, ["x = 1"])
    assert tidy_layout(t)[3000] == (3000, 0.0)


def texts_overlap(picture):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(picture.figure)
    canvas.draw()
    boxes = [
        (a.get_text(), a.get_window_extent(canvas.get_renderer()))
        for ax in picture.figure.axes
        for a in ax.texts
        if a.get_text().strip()
    ]
    return [
        (s, r)
        for k, (s, x) in enumerate(boxes)
        for r, y in boxes[k + 1 :]
        if min(x.x1, y.x1) - max(x.x0, y.x0) > 1 and min(x.y1, y.y1) - max(x.y0, y.y0) > 1
    ]


@pytest.mark.parametrize("n", [5, 40, 500])
def test_no_text_overlaps(n):
    assert texts_overlap(show_tree(random_tree(n, 3))) == []


def test_no_text_overlaps_with_wide_letters_and_long_words():
    t = Tree("wide", "q")
    for node in range(3):
        add_children(t, node, ["# " + "W" * 60, "W" * 10_000, "# " + "mmm " * 50])
    assert texts_overlap(show_tree(t)) == []


def test_large_tree_keeps_the_path_and_its_ancestors():
    t = random_tree(500, 1)
    end = max((n.id for n in t.nodes if not n.node_visits), key=lambda i: len(path_to(t, i)))
    shown = visible_nodes(t, 30, path_to(t, end))
    assert end in shown and len(shown) <= 31 + len(path_to(t, end))
    assert all(t.nodes[i].parent in shown for i in shown if i)


def test_best_end_prefers_correct_then_q():
    t = Tree("b", "q")
    a, b, c, d = add_children(t, 0, ["answer = 1", "answer = 2", "answer = 3", "answer = 4"])
    for i, (correct, value) in zip(
        (a, b, c, d), [(False, 1.0), (True, 0.2), (True, 0.6), (None, 0.9)]
    ):
        t.nodes[i].answer, t.nodes[i].correct = i, correct
        backup(t, i, value)
    assert best_end(t) == c
    assert best_end(Tree("n", "q")) is None


HOSTILE = [
    "<script>alert(1)</script>",
    "]]></svg><script>x</script>",
    "$\\frac{$",
    "🙂🙂\x00\x1b[31m\t",
    "x" * 10_000,
    "# " + "é" * 300,
    "",
    "\n\n",
    "#",
    "<!-- ",
    "\ud800",
]


def hostile_tree():
    t = Tree("<b>id</b>", " ".join(HOSTILE))
    for i in add_children(t, 0, HOSTILE):
        t.nodes[i].status, t.nodes[i].error = "error", HOSTILE[i % len(HOSTILE)]
    for i in add_children(t, 1, [f"answer = '{h}'" for h in HOSTILE]):
        t.nodes[i].answer = HOSTILE[i % len(HOSTILE)]
    return t


def test_hostile_text_is_drawn_and_escaped():
    picture = show_tree(hostile_tree())
    svg = picture.svg()
    assert "<script" not in svg and "<!-- &" not in svg and "\x00" not in svg
    assert picture.png()[:8] == b"\x89PNG\r\n\x1a\n"
    from xml.etree import ElementTree

    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert all(len(line) < 400 for line in picture.text.split("\n")[1:])


def siblings(*steps):
    t = Tree("siblings", "any question")
    add_children(t, 0, steps)
    return t


def bold(label):
    return [text for line in label for text, is_bold in line if is_bold]


@given(st.text(max_size=300), st.text(max_size=300), st.integers(4, 60), st.integers(1, 3))
@settings(max_examples=200, deadline=None)
def test_label_is_short(a, b, width, lines):
    for h in [*HOSTILE, a]:
        label = node_label(siblings(h, b), 1, width, lines)
        assert len(label) <= lines and all(len(x) <= width for x in plain(label).split("\n"))
        assert all(text for line in label for text, _ in line)
        assert "\n" not in "".join(text for line in label for text, _ in line)


@given(st.lists(st.sampled_from(["a", "b", " ", "=", "1", "2"]), max_size=12), st.data())
@settings(max_examples=200, deadline=None)
def test_the_difference_is_what_the_others_lack(words, data):
    text = "".join(words)
    other = "".join(data.draw(st.permutations(words)))
    start, end = difference(text, [other, "something else"])
    assert 0 <= start <= end <= len(text)
    if text != other:
        # What stands before and behind the difference stands in the sibling, too.
        assert other.startswith(text[:start].rstrip()) and other.endswith(text[end:].lstrip())
    else:
        assert start == end


ANSWERS = [f"# count them\nanswer = len(range({x}, 100, 3))" for x in (3, 0, 20)]


def test_three_answers_under_one_comment_are_told_apart():
    t = siblings(*ANSWERS)
    labels = [node_label(t, i, 30) for i in (1, 2, 3)]
    assert [bold(x) for x in labels] == [["3"], ["0"], ["20"]]
    assert plain(labels[0]) == "answer = len(range(3, 100, 3))"
    # Behind a long beginning the difference is still seen.
    long = siblings(*(f"x = {' + '.join(map(str, range(40)))} - {k}" for k in (7, 8)))
    assert [bold(node_label(long, i)) for i in (1, 2)] == [["7"], ["8"]]
    # With the same code, the comments differ; with one child nothing does.
    same = siblings("# half\nx = 6 / 2", "# a third\nx = 6 / 2")
    assert [bold(node_label(same, i)) for i in (1, 2)] == [["half"], ["a third"]]
    assert bold(node_label(siblings(ANSWERS[0]), 1)) == []


def test_the_picture_shows_the_difference_in_bold():
    t = siblings(*ANSWERS)
    drawn = [
        a.get_text()
        for ax in show_tree(t).figure.axes
        for a in ax.texts
        if a.get_weight() == "bold" and a.get_text() and not a.get_text().startswith("=")
    ]
    assert drawn == ["3", "0", "20"]


def test_the_plain_text_marks_the_difference():
    t = siblings(*ANSWERS)
    assert all(f"answer = len(range(«{x}», 100, 3))" in tree_text(t) for x in (3, 0, 20))
    # Nothing is marked where all of it differs, or nothing does.
    assert "«" not in tree_text(siblings("import numpy", "x = 1")) + tree_text(siblings("x = 1"))
    assert marked([[("x = ", False), ("1", True)], [("2", True)]]) == "x = «1»\n«2»"


WORDS = ["+", "-", "x", "total", "len(range(", "]", "answer", "a_long_name_of_a_variable", "12"]


@given(
    st.lists(st.sampled_from(WORDS), max_size=40),
    st.lists(st.sampled_from(WORDS), max_size=40),
    st.sampled_from([(8, 2), (15, 2), (22, 2), (60, 1), (12, 1)]),
)
@settings(max_examples=200, deadline=None)
def test_shortening_keeps_the_difference(before, after, size):
    """Wherever a label is cut, three siblings that differ in one number show it in bold."""
    t = siblings(*(" ".join([*before, number, *after]) for number in ("7", "8", "345")))
    assert [bold(node_label(t, i, *size)) for i in (1, 2, 3)] == [["7"], ["8"], ["345"]]
    assert len({plain(node_label(t, i, *size)) for i in (1, 2, 3)}) == 3


@pytest.mark.parametrize(
    "tree",
    [
        Tree("e", "q", nodes=[]),
        Tree("one", "q"),
        Tree(
            "lost", "q", nodes=[Node(0, -1, children=[1, 7]), Node(1, 0, "x = 1", children=[0, 1])]
        ),
    ],
)
def test_odd_trees(tree):
    data, meta = show_tree(tree)._repr_mimebundle_()
    assert (
        set(data) == {"image/png", "image/svg+xml", "text/plain"}
        and meta["image/png"]["width"] > 100
    )


def test_pictures_are_deterministic():
    a, b = (show_tree(random_tree(60, 5)) for _ in range(2))
    assert a.png() == b.png() and a.svg() == b.svg()


def test_text_marks_the_path_and_counts_the_hidden():
    t = random_tree(500, 2)
    text = tree_text(t, path_to(t, best_end(t)))
    assert text.count("\n*") == len(path_to(t, best_end(t))) - 1
    assert re.search(r"\+\d", text)


def test_side_by_side_and_nothing_at_all():
    assert len(show_trees([random_tree(5), random_tree(9)], ["a", "b"]).figure.axes) == 3
    assert show_trees([])._repr_mimebundle_()


def test_save(tmp_path):
    for kind in ("png", "svg", "txt"):
        show_tree(random_tree(9)).save(tmp_path / f"t.{kind}")
        assert (tmp_path / f"t.{kind}").stat().st_size > 50
    with pytest.raises(KeyError):
        show_tree(random_tree(9)).save(tmp_path / "t.pdf")


def a_round(k, correct, n=100, **others):
    counts = dict(n=n, correct=correct, by_level={"1": [correct, n], "10": [0, 0]})
    return dict(
        dict(
            round=k,
            policy=counts,
            search=counts if k else None,
            coverage=counts if k else None,
            tokens=dict(greedy=1000),
            seconds=dict(search=60.0, sft=30.0),
        ),
        **others,
    )


def test_curve_shows_what_was_measured():
    from rstar_nb.show.rounds import accuracy_points, plot_rounds

    record = [a_round(0, 40), a_round(1, 60)]
    assert accuracy_points(record, "policy") == [
        (0, 40.0, pytest.approx(30.94, abs=0.01), pytest.approx(49.80, abs=0.01), 100),
        (1, 60.0, pytest.approx(50.20, abs=0.01), pytest.approx(69.06, abs=0.01), 100),
    ]
    assert [p[0] for p in accuracy_points(record, "search")] == [1]
    picture = plot_rounds(record)
    assert (
        str(picture).count("\n") == 2
        and "paper" in picture.svg()
        and "paper" not in plot_rounds(record, reference=False).svg()
    )


def test_levels_and_costs():
    from rstar_nb.show.rounds import level_grid, plot_costs, plot_coverage, tokens_of

    record = [a_round(0, 40), a_round(2, 60, search_tokens=5000), a_round(1, 50)]
    rounds, levels, cells = level_grid(record)
    assert (rounds, levels, cells["1", 2]) == ([1, 2], ["1", "10"], (60, 100))
    assert (
        "round 2 60 %" in str(plot_coverage(record))
        and str(plot_coverage([])) == "nothing was measured by level"
    )
    assert tokens_of(record[1]) == dict(greedy=1000, search=5000)
    assert "round 2: 6.0 thousand tokens" in str(
        plot_costs(record)
    ) and "round 0: 1.5 minutes" in str(plot_costs(record))


@pytest.mark.parametrize(
    "record", [[], [a_round(0, 0, 0)], [dict(round=7, policy=None, search=None, coverage=None)]]
)
def test_short_records_draw(record):
    from rstar_nb.show.rounds import plot_costs, plot_coverage, plot_rounds

    for plot in (plot_rounds, plot_coverage, plot_costs):
        assert plot(record)._repr_mimebundle_()


# -- one problem in two rounds --------------------------------------------------------------------


class Fixed:
    """Proposes these whole programs; its scores are a digit of the last step."""

    def __init__(self, texts):
        self.texts = texts

    def propose(self, prefixes, k, seeds, temperature=1.0, top_k=0):
        from rstar_nb.policy.steps import Candidate

        return [
            [Candidate(t, -0.1 * i - 0.1, (1, 2, 3), True) for i, t in enumerate(self.texts[:k])]
            for _ in prefixes
        ]

    def score(self, prefixes):
        return [int(steps[-1][-1]) / 10 for _, steps in prefixes]


TEXTS = {
    1: ["answer = 'no'  # 3", "answer = 1  # 2"],
    2: ["answer = 'no'  # 1", "answer = {right}  # 9", "answer = 1 / 0  # 5"],
}


def run_with_models(path):
    """A run folder with evaluated rounds 1 and 2; what would be models are the texts above."""
    from rstar_nb.evolve.measuring import evaluation_options
    from rstar_nb.evolve.settings import Settings
    from rstar_nb.executor.pool import Executor
    from rstar_nb.measure.accuracy import measure_search
    from rstar_nb.problems.generator import generate
    from rstar_nb.search.agent import Agent
    from rstar_nb.store import publish, write_lines

    problems = generate(6, "test")
    settings = Settings().with_values(
        {
            "rounds": 2,
            "search.max_depth": 4,
            "evaluation.rollouts": 3,
            "evaluation.candidates": 3,
            "search.expansion": "sampled_steps",
            "machine.workers": 1,
            "machine.processes": 1,
        }
    )
    path.mkdir()
    config = dict(settings=asdict(settings), preset="tiny")
    (path / "config.json").write_text(json.dumps(config))
    with Executor(workers=1, preload=()) as executor:
        for k in (1, 2):
            (path / f"round_{k}").mkdir()
            texts = json.dumps(TEXTS[k])
            for name in ("policy", "ppm"):
                publish(path / f"round_{k}" / name, partial(write_texts, texts))
            options = evaluation_options(settings, k)
            rows = []
            for p in problems:
                policy = fixed(path / f"round_{k}" / "policy", p)
                rows += measure_search(Agent(policy, executor, Fixed([])), [p], options)[0]
            write_lines(
                path / f"round_{k}" / "eval.jsonl",
                [dict(r, split="test") for r in rows]
                + [dict(rows[0], strategy="greedy", split="test")],
            )
    return path, problems


def write_texts(texts, folder):
    (folder / "texts.json").write_text(texts)


def fixed(folder, problem):
    return Fixed(
        [
            t.replace("{right}", problem.answer)
            for t in json.loads((folder / "texts.json").read_text())
        ]
    )


def fixed_models(problem):
    """What loads the two from a folder, for one problem."""
    return SimpleNamespace(
        load_policy=lambda folder: fixed(folder, problem), load_ppm=lambda folder: Fixed([])
    )


def test_two_rounds_are_the_trees_of_the_evaluation(tmp_path):
    from rstar_nb.evolve.two_rounds import (
        read_two_rounds,
        rounds_with_models,
        two_rounds,
        write_two_rounds,
    )
    from rstar_nb.search.votes import likely_weight, vote
    from rstar_nb.show.two_rounds import show_two_rounds

    run, problems = run_with_models(tmp_path / "run")
    assert rounds_with_models(run) == [1, 2]
    p = problems[3]
    pair = two_rounds(run, models=fixed_models(p))
    assert (
        pair["problem"] == p.id
        and p.level == 4
        and pair["gains"] == dict(both=0, only_early=0, only_late=6, neither=0)
    )
    for k, t in pair["trees"].items():
        assert (vote(t, likely_weight), t.tokens) == (
            pair["recorded"][k]["answer"],
            pair["recorded"][k]["tokens"],
        )
    assert [[n.correct for n in t.nodes[1:]] for t in pair["trees"].values()] == [
        [False, False],
        [False, True, None],
    ]
    write_two_rounds(run, pair)
    assert read_two_rounds(run) == pair
    assert "Round 1: 0 of 2 rollouts right, answer no, which is wrong" in str(
        show_two_rounds(pair)
    ) and "Round 2: 1 of 2" in str(show_two_rounds(pair))


def test_two_rounds_say_what_is_missing(tmp_path):
    from rstar_nb.evolve.two_rounds import read_two_rounds, two_rounds

    run, problems = run_with_models(tmp_path / "run")
    with pytest.raises(LookupError, match="choose from 1, 2"):
        two_rounds(run, rounds=(1, 3))
    (run / "round_2" / "policy" / "texts.json").write_text("damaged")
    with pytest.raises(LookupError, match="1 rounds there"):
        two_rounds(run)
    with pytest.raises(OSError):
        read_two_rounds(run)
    (run / "two_rounds.json").write_text('{"trees": 3}')
    with pytest.raises(ValueError, match="make it again"):
        read_two_rounds(run)


def test_report_shows_two_rounds_from_their_file_and_says_why_not(tmp_path, monkeypatch):
    import rstar_nb.show.report as report

    run, problems = run_with_models(tmp_path / "run")
    assert "could not be grown" in report.write_report(run).read_text()  # its models are no models
    grown = []

    def grow(folder):
        grown.append(folder)
        return report_two_rounds(folder, models=fixed_models(problems[3]))

    report_two_rounds = report.two_rounds
    monkeypatch.setattr(report, "two_rounds", grow)
    for _ in range(2):
        page = report.write_report(run).read_text()
        assert (
            "One held-out problem, two rounds" in page
            and "only round 2 6," in page
            and page.count("data-tree=") >= 2
        )
    assert grown == [run] and "another version" not in page  # the second report read the file
    pair = json.loads((run / "two_rounds.json").read_text())
    pair["recorded"]["1"]["tokens"] += 1
    (run / "two_rounds.json").write_text(json.dumps(pair))
    assert "another version" in report.write_report(run).read_text()


def test_nothing_is_drawn_beyond_the_picture():
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    t = Tree("long", "q")
    for i, a in zip(
        add_children(t, 0, ["answer = 1", "answer = 2", "answer = 3"]),
        (1975.75, "W" * 30, 749.4000000000001),
    ):
        t.nodes[i].answer, t.nodes[i].correct = a, True
    for picture in (
        show_tree(t),
        show_trees([t, t], over="the question " * 30),
        show_tree(random_tree(60, 4)),
    ):
        canvas = FigureCanvasAgg(picture.figure)
        canvas.draw()
        width, height = picture.figure.bbox.width, picture.figure.bbox.height
        boxes = [
            a.get_window_extent(canvas.get_renderer())
            for ax in picture.figure.axes
            for a in ax.texts
            if a.get_text().strip()
        ] + [
            a.get_window_extent(canvas.get_renderer()) for a in picture.figure.texts if a.get_text()
        ]
        assert all(
            b.x0 >= -1 and b.x1 <= width + 1 and b.y0 >= -1 and b.y1 <= height + 1 for b in boxes
        )
    assert "= 749.4 ✓" in show_tree(t).svg() and "749.4000000000001" not in str(show_tree(t))


# -- what a saved notebook shows where nothing runs ------------------------------------------------

DRAWS = re.compile(
    r"\A(?:\w+ = )?(show_\w*trees?|show_two_rounds|plot_\w+|Picture|run_picture"
    r"|TreeWidget|Playground|Dashboard|Light)\("
)


def code_cells(path):
    return [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]


def joined(x):
    return "".join(x) if isinstance(x, list) else x


def says_something(text) -> bool:
    """Is it more than the name of a class and an address?"""
    return len(text.strip()) > 20 and not re.fullmatch(
        r"<?[\w.]+(\(.*\)| object.*>| at 0x.*>)?", text.strip(), re.S
    )


def without_kernel(outputs) -> list:
    """Complaints about outputs that show nothing where nothing runs.

    That is on GitHub, in nbconvert, and at the first, untrusted opening.
    """
    complaints = []
    for o in outputs:
        data = o.get("data", {})
        active = [
            k
            for k in data
            if k == "text/html" or k == "image/svg+xml" or k.startswith("application/")
        ]
        if (
            active
            and "image/png" not in data
            and not says_something(joined(data.get("text/plain", "")))
        ):
            complaints.append(f"{', '.join(active)} without a picture or a text")
        if "application/vnd.jupyter.widget-view+json" in data:
            complaints.append("a live view, which is an error message without its kernel")
        if "image/png" in data:
            head = base64.b64decode(joined(data["image/png"]))[:24]
            if head[:8] != b"\x89PNG\r\n\x1a\n" or int.from_bytes(head[16:20], "big") < 100:
                complaints.append("a PNG that is none, or a tiny one")
    return complaints


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_saved_outputs_show_something_without_a_kernel(path):
    assert without_kernel([o for c in code_cells(path) for o in c["outputs"]]) == []


def cells_that_draw(path):
    """(cell, the line that draws) of cells whose value is a picture or that draw with pyplot."""
    for c in code_cells(path):
        lines = [
            line
            for line in joined(c["source"]).split("\n")
            if line.strip() and not line.startswith((" ", ")"))
        ]
        if not lines or "#| slow" in lines[0] or "#| gpu" in lines[0]:
            continue
        named = {m[1]: m[2] for m in map(re.compile(r"(\w+) = (.+)").match, lines) if m}
        last = named.get(lines[-1].strip(), lines[-1])
        if DRAWS.match(last) and "=" not in lines[-1].split("(")[0]:
            yield c, lines[-1]
        elif with_pyplot := [
            line
            for line in lines
            if re.search(r"\bplt\.(subplots|figure|plot|bar)\(", line)
            and not line.startswith("def ")
        ]:
            yield c, with_pyplot[0]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_cells_that_draw_hold_a_png(path):
    assert [
        line
        for c, line in cells_that_draw(path)
        if not any("image/png" in o.get("data", {}) for o in c["outputs"])
    ] == []


def test_the_cells_that_draw_are_found():
    assert (
        len(list(cells_that_draw(NBS / "06_seeing_trees.ipynb"))) >= 5
        and len(list(cells_that_draw(NBS / "inside" / "show_arms.ipynb"))) >= 4
        and len(list(cells_that_draw(NBS / "04_ucb.ipynb"))) >= 3
    )


def test_the_check_of_saved_outputs_can_fail():
    png = show_tree(Tree("one", "q"))._repr_mimebundle_()[0]["image/png"]
    assert without_kernel(
        [dict(data={"text/html": "<b>x</b>", "text/plain": "<IPython.core.display.HTML object>"})]
    )
    assert without_kernel(
        [dict(data={"application/javascript": "1", "text/plain": ["HBox(children=(1, 2))"]})]
    )
    assert without_kernel(
        [dict(data={"application/vnd.jupyter.widget-view+json": {}, "image/png": png})]
    )
    assert without_kernel([dict(data={"image/png": base64.b64encode(b"GIF89a").decode()})])
    assert not without_kernel(
        [
            dict(data={"text/html": "<table>", "text/plain": "   model  memory\n0  llama  12.5"}),
            dict(data={"image/png": png, "image/svg+xml": "<svg/>"}),
            dict(text="plain"),
        ]
    )


# -- a run's folder, read while another process writes it -----------------------------------------


def test_the_wing_has_no_reader_of_its_own():
    """Rows come from `iterate_lines`: a second reader would treat torn lines its own way."""
    import rstar_nb.show

    own = {}
    for module in sorted(Path(rstar_nb.show.__path__[0]).glob("*.py")):
        text = module.read_text()
        own[module.name] = re.findall(r"json\.loads\(\w*\.?(?:line|readline)\b", text)
    assert {name: hits for name, hits in own.items() if hits} == {}


def test_a_torn_evaluation_is_read_as_far_as_it_goes(tmp_path):
    from rstar_nb.evolve.two_rounds import searched

    row = dict(problem_id="a", strategy="mcts", correct=True)
    (tmp_path / "round_1").mkdir()
    (tmp_path / "round_1" / "eval.jsonl").write_text(json.dumps(row) + '\n{"problem_id": "b", "st')
    assert searched(tmp_path, 1) == {"a": row}


def test_another_run_in_the_same_folder_is_noticed(tmp_path):
    """Even if its files are longer already than those of the run before."""
    from rstar_nb.show.follow import Follower

    (tmp_path / "config.json").write_text(json.dumps(dict(settings=dict(rounds=1))))
    (tmp_path / "metrics.jsonl").write_text('{"round": 0, "of": "the first run"}\n')
    run = Follower(tmp_path)
    assert run.poll() and not run.poll()
    (tmp_path / "metrics.jsonl").write_text(
        "".join(f'{{"round": {k}, "of": "another run in this folder"}}\n' for k in range(2))
    )
    assert run.poll() and not run.poll()
    assert {m["of"] for m in run.metrics.values()} == {"another run in this folder"}
