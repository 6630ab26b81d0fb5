"""The viewer in a real browser: exported pages from disk, and the widget in JupyterLab."""

import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import asdict
from pathlib import Path

import pytest

from rstar_nb.evolve.settings import Settings
from rstar_nb.search.agent import Agent, SearchOptions
from rstar_nb.search.mcts import backup, search
from rstar_nb.search.tree import Tree, add_children, replay, tree_to_json
from rstar_nb.search.ucb import puct, uct
from rstar_nb.show.live import viewer_source
from rstar_nb.show.page import embed, tree_page, write_tree_page
from rstar_nb.show.provenance import origins
from rstar_nb.show.report import write_report
from rstar_nb.show.widget import TreeWidget, beginnings, node_of, viewer_data
from rstar_nb.store import append_lines

BROWSER = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WITHOUT = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium on this machine (Debian: apt-get install chromium)"
)
DIED = pytest.mark.flaky(
    reruns=1,
    only_rerun=[
        "Target page, context or browser has been closed",
        "Target crashed",
        "Page crashed",
    ],
)  # a browser that dies says nothing about the page; twice, it does


def needs_browser(test):
    return WITHOUT(DIED(test))


HOSTILE = [
    "<script>window.hacked = 1</script>",
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked=1'>",
    "🙂 \u2028 \ud800",
    "# " + "long " * 2000,
    "x" * 10_000,
]


class Policy:
    """Three steps, one of which fails; programs of two steps."""

    def propose(self, prefixes, k, seeds, temperature=1.0, top_k=0):
        from rstar_nb.policy.steps import Candidate

        first = ["# two numbers\na = 20", "# one more\na = 21", "a = 1 / 0"]
        return [
            [
                Candidate(t, -0.5 * i - 0.1, (1, 2), True)
                for i, t in enumerate(
                    first
                    if not steps
                    else ["# the sum\nanswer = a + 12", "# too much\nanswer = a + 13", "answer = b"]
                )
            ]
            for _, steps in prefixes
        ]

    def score(self, prefixes):
        return [0.25 if "20" in steps[0] else -0.5 for _, steps in prefixes]


class Runner:
    """Runs the steps above without an executor."""

    def run(self, programs):
        from types import SimpleNamespace as R

        out = []
        for p in programs:
            scope = {}
            try:
                exec(p, scope)
                out.append(R(status="ok", error="", answer=scope.get("answer")))
            except Exception as e:
                out.append(R(status="error", error=f"{type(e).__name__}: {e}", answer=None))
        return out


def grown(rollouts=5, ppm=True):
    tree = Tree("sum", "What is 20 + 13?")
    agent = Agent(Policy(), Runner(), Policy() if ppm else None)
    search([tree], agent, SearchOptions(rollouts, candidates=3), references={"sum": "33"})
    return tree


def hostile_tree():
    t = Tree(HOSTILE[1], " ".join(HOSTILE[:4]))
    for i in add_children(t, 0, HOSTILE):
        t.nodes[i].status, t.nodes[i].error = ("ok", "") if i % 2 else ("error", HOSTILE[i % 4])
    for i in add_children(t, 1, [f"# {HOSTILE[2]}\nanswer = {k}" for k in range(3)]):
        t.nodes[i].answer = HOSTILE[i % 4]
    return t


# -- data, no browser needed -----------------------------------------------------------------------


def test_data_is_plain_json_and_replays():
    t = grown()
    data = json.loads(json.dumps(viewer_data(t), allow_nan=False))
    assert [e["kind"] for e in data["events"]] == [e["kind"] for e in t.events]
    assert beginnings(t)["made"] == {0}
    assert data["selected"] and t.nodes[data["selected"][0]].correct


def test_data_of_odd_trees():
    t = grown()
    t.nodes[1].ppm, t.nodes[2].prior, t.nodes[2].answer = float("nan"), float("inf"), float("nan")
    t.events += [
        dict(kind="backup", path=[0, 99], before=[], after=[], reward=1.0),
        dict(kind="dance"),
        {},
        dict(kind="expand"),
    ]
    data = viewer_data(t)
    json.dumps(data, allow_nan=False)
    assert len(data["events"]) == len(t.events) - 4
    for t in (Tree("e", "q", nodes=[]), Tree("one", "q"), hostile_tree()):
        json.dumps(viewer_data(t), allow_nan=False).encode()


def test_hand_made_tree_keeps_its_numbers():
    t = Tree("h", "q")
    add_children(t, 0, ["a = 1", "a = 2"])
    t.nodes[1].node_visits, t.nodes[1].value_sum = 5, 2.0
    backup(t, 2, 1.0)
    data = viewer_data(t)
    assert (data["nodes"][1]["n0"], data["nodes"][2]["n0"], data["nodes"][2]["n1"]) == (5, 0, 1)
    assert all(n["alive0"] for n in data["nodes"])


def test_pairs_and_solutions_are_found_by_their_steps():
    t = grown()
    path = t.steps(len(t.nodes) - 1)
    assert node_of(t, path) == len(t.nodes) - 1 and node_of(t, path + ["x"]) is None
    data = viewer_data(
        t,
        pairs=[dict(better=t.steps(1), worse=t.steps(2)), (1, 2), (["no such step"], 1)],
        selected=[dict(steps=t.steps(2))],
    )
    assert data["pairs"] == [[1, 2], [1, 2]] and data["selected"] == [2]


def test_embedded_data_cannot_end_the_script():
    page = tree_page(hostile_tree())
    assert len(re.findall("<script", page)) == 2 and len(re.findall("</script", page)) == 2
    assert "<img src=x" not in page
    assert json.loads(embed(HOSTILE[:3])) == HOSTILE[:3]
    assert "</script" not in viewer_source("viewer.js").lower()


def test_viewer_never_parses_text_as_markup():
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function",
        viewer_source("viewer.js"),
    )


def test_page_asks_for_nothing_from_a_network():
    page = tree_page(grown())
    assert "default-src 'none'" in page and "unsafe-inline'; img" in page
    assert re.findall(r"""(?:src|href)=["'](?!data:)[^"']*""", page) == []
    assert set(re.findall(r"https?://[\w./]+", page)) <= {"http://www.w3.org/2000/svg"}


def test_widget_refuses_a_node_that_is_not_there():
    import traitlets

    w = TreeWidget(grown())
    w.selected_node = 1
    with pytest.raises(traitlets.TraitError):
        w.selected_node = 10_000
    with pytest.raises(KeyError):
        w.select("no such step")
    w.select(w.tree.nodes[2].step)
    assert w.selected_node == 2
    assert {"image/png", "text/plain"} <= set(w._repr_mimebundle_()[0])


def run_folder(path, name="a_run"):
    run = path / name
    easy, hard = grown(), grown(1)
    for n in hard.nodes:
        n.correct = False if n.correct is not None else None
    for e in hard.events:
        if e["kind"] == "backup":
            e["reward"] = -1.0
    for k, t in ((1, hard), (2, easy)):
        (run / f"round_{k}").mkdir(parents=True)
        evil = hostile_tree()
        for i in (7, 8):
            evil.nodes[i].correct = i == 7
            backup(evil, i, 1.0 if i == 7 else -1.0)
        append_lines(
            run / f"round_{k}" / "search.jsonl",
            [
                dict(tree_to_json(t), level=1, subject="x", solved=k == 2),
                json.loads(json.dumps(tree_to_json(evil)).replace("\\ud800", "?")),
            ],
        )
    counts = dict(n=40, correct=20, by_level={"1": [15, 20], "2": [5, 20]})
    append_lines(
        run / "metrics.jsonl",
        [
            dict(
                round=k,
                policy=counts,
                search=counts,
                coverage=counts if k else None,
                tokens={},
                seconds=dict(search=60.0),
            )
            for k in range(3)
        ],
    )
    (run / "config.json").write_text(json.dumps(dict(settings=dict(rounds=2), note=HOSTILE[0])))
    return run


def test_report_of_whole_torn_and_empty_runs(tmp_path):
    run = run_folder(tmp_path)
    with open(run / "round_2" / "search.jsonl", "a") as f:
        f.write('{"problem_id": "torn')
    with open(run / "metrics.jsonl", "a") as f:
        f.write('{"round": 3, "pol')
    before = (run / "metrics.jsonl").read_bytes()
    page = write_report(run).read_text()
    assert (
        "One problem, two rounds" in page
        and "3 rounds measured" in page
        and "50.0 % (35.2-64.8)" in page
    )
    assert "<script>window" not in page and "&lt;script&gt;window" in page
    assert (run / "metrics.jsonl").read_bytes() == before
    (tmp_path / "new").mkdir()
    with pytest.raises(FileNotFoundError):
        write_report(tmp_path / "new")
    (tmp_path / "new" / "config.json").write_text("{}")
    assert "0 rounds measured" in write_report(tmp_path / "new").read_text()


# -- exported pages in Chromium --------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium():
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync.sync_playwright() as p:
        yield p.chromium


@pytest.fixture
def page(chromium):
    browser = chromium.launch(
        executable_path=BROWSER, args=FLAGS
    )  # one for each test: none inherits another's death
    page = browser.new_page(viewport=dict(width=1300, height=900))
    page.set_default_timeout(120_000)  # a busy machine is no failure
    page.problems, page.requests = [], []
    page.on("console", lambda m: m.type == "error" and page.problems.append(m.text))
    page.on("pageerror", lambda e: page.problems.append(str(e)))
    page.on("request", lambda r: page.requests.append(r.url))
    yield page
    browser.close()


def look(page, name, whole=False):
    """Keep a screenshot if asked to: RSTAR_SCREENSHOTS=FOLDER pytest tests/test_browser.py."""
    if folder := os.environ.get("RSTAR_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png", full_page=whole)


def opened(page, tree, tmp_path, **kw):
    page.goto(write_tree_page(tree, tmp_path / "tree.html", **kw).as_uri())
    page.wait_for_selector(".rstar-tree .n")
    return page.locator(".rstar-tree")


def ranking(view, parent=0):
    return [
        (int(r.get_attribute("data-node")), *r.locator("td").all_inner_texts()[1:])
        for r in view.locator(f"table.ranking[data-parent='{parent}'] tbody tr").all()
    ]


def shown(x):
    return "∞" if x == math.inf else f"{x:+.2f}".replace("-", "−")


def value(text):
    return math.inf if text == "∞" else float(text.replace("−", "-"))


@needs_browser
def test_click_shows_code_result_and_numbers(page, tmp_path):
    t = grown()
    view = opened(page, t, tmp_path)
    end = next(n for n in t.nodes if n.correct)
    view.locator(f".n[data-node='{end.id}']").click()
    assert view.locator("pre.step").inner_text() == end.step
    assert view.locator("pre.before").all_inner_texts() == t.steps(end.id)[:-1]
    assert view.locator("pre.step .t-comment").inner_text() == end.step.split("\n")[0]
    assert "33, correct" in view.locator(".verdict").inner_text()
    assert view.locator(".origin").inner_text() == str(origins(t)[end.id])
    numbers = [value(x) for x in view.locator("tr.numbers td").all_inner_texts()]
    assert numbers == pytest.approx(
        [end.node_visits, end.q_value, end.prior, end.ppm, end.value_sum], abs=0.0051
    )
    look(page, "tree")
    failed = next(n for n in t.nodes if n.status == "error")
    view.locator(f".n[data-node='{failed.id}']").click()
    assert failed.error in view.locator(".verdict").inner_text()
    assert page.problems == []


@needs_browser
@pytest.mark.parametrize("name,rule", [("uct", uct), ("puct", puct)])
def test_slider_ranks_as_python_does(page, tmp_path, name, rule):
    t = Tree("arms", "which arm?")
    add_children(
        t, 0, ["a = 1", "a = 2", "a = 3", "a = 4", "a = 1 / 0"], [-1.0, -0.1, -3.0, -2.0, 0.0]
    )
    for i, (n, q) in enumerate([(30, 0.9), (3, 0.4), (9, 0.7), (0, 0.0)], 1):
        t.nodes[i].node_visits, t.nodes[i].value_sum = n, n * q
    t.nodes[5].status, t.nodes[0].node_visits, t.nodes[3].ppm = "error", 42, 0.2
    view = opened(page, t, tmp_path)
    view.locator("select.rule").select_option(name)
    orders = set()
    for c in (0, 0.5, 2, 5):
        view.locator("input.c").fill(str(c))
        kids = [t.nodes[i] for i in t.nodes[0].children if t.nodes[i].status == "ok"]
        score = {n.id: rule(n.q_value, n.visits, t.nodes[0].visits, n.prior, c) for n in kids}
        rows = [r for r in ranking(view) if "did not run" not in r]
        assert [r[0] for r in rows] == sorted(score, key=lambda i: -score[i])
        assert [value(r[4]) for r in rows] == pytest.approx([score[r[0]] for r in rows], abs=0.0051)
        orders.add(tuple(r[0] for r in rows))
    assert len(ranking(view)) == len(t.nodes[0].children)
    assert len(orders) > 1


@needs_browser
def test_every_moment_agrees_with_replay(page, tmp_path):
    t = grown()
    opened(page, t, tmp_path)
    for k in [*range(len(t.events) + 1), 3, len(t.events), 0, 7]:
        page.evaluate("k => document.querySelector('.rstar-tree').viewer.goto(k)", k)
        then = replay(t, k)
        live = page.evaluate(
            """[...document.querySelectorAll('.rstar-tree .n[data-node]:not(.off)')]
                .map(g => [+g.dataset.node, +g.querySelector('.count').textContent])"""
        )
        assert live == [[n.id, n.node_visits] for n in then.nodes]


@needs_browser
def test_keyboard_and_phases(page, tmp_path):
    t = grown()
    view = opened(page, t, tmp_path)
    view.focus()
    page.keyboard.press("Home")
    for e in t.events[:5]:
        page.keyboard.press("ArrowRight")
        assert view.locator(".phases .now").inner_text() == e["kind"]
    page.keyboard.press("Shift+ArrowRight")
    assert view.locator(".phases .now").inner_text() == "backup"
    first = next(e for e in t.events if e["kind"] == "backup")
    assert sorted(
        int(g.get_attribute("data-node")) for g in view.locator(".n.hot").all()
    ) == sorted(first["path"])
    assert {x for x in view.locator(".reward").all_text_contents() if x} == {
        shown(first["reward"]).replace(".00", "")
    }
    page.keyboard.press("End")
    page.keyboard.press("d")
    page.keyboard.press("d")
    best = max(t.nodes[0].children, key=lambda i: t.nodes[i].node_visits)
    assert view.locator(".n.picked").get_attribute("data-node") == str(best)
    page.keyboard.press("s")
    assert view.locator(".n.picked").get_attribute("data-node") == str(best + 1)
    page.keyboard.press("/")
    page.keyboard.type("the sum")
    assert view.locator(".n.hit").count() == sum("the sum" in n.step for n in t.nodes)
    page.keyboard.press("Enter")
    assert "the sum" in view.locator("pre.step").inner_text()


@needs_browser
def test_labels_tell_siblings_apart(page, tmp_path):
    """In the drawing and in the ranking what differs is bold; the rest is not."""
    t = Tree("siblings", "any question")
    steps = [f"# count them\nanswer = len(range({x}, 100, 3))" for x in (3, 0, 20)]
    steps.append("<b>x</b>")
    add_children(t, 0, steps)
    view = opened(page, t, tmp_path)
    drawn = view.locator(".n tspan.own")
    assert drawn.all_text_contents()[:3] == ["3", "0", "20"]
    assert {x.evaluate("e => getComputedStyle(e).fontWeight") for x in drawn.all()} == {"700"}
    plain = view.locator(".n[data-node='1'] tspan:not(.own)").first
    assert plain.evaluate("e => getComputedStyle(e).fontWeight") == "400"
    assert "range(0, 100" in "".join(view.locator(".n[data-node='2'] tspan").all_text_contents())
    rows = {r.get_attribute("data-node"): r for r in view.locator("table.ranking tr").all()}
    assert rows["3"].locator("b").all_text_contents() == ["20"]
    assert "answer = len(range(20, 100, 3))" in rows["3"].inner_text()
    assert "<b>x</b>" in rows["4"].inner_text() and page.problems == []
    look(page, "labels")


@needs_browser
def test_play_reaches_the_end(page, tmp_path):
    t = grown(2)
    view = opened(page, t, tmp_path)
    view.locator(".speed").select_option("fast")
    view.get_by_text("play", exact=True).click()
    view.get_by_text("pause", exact=True).wait_for()
    view.get_by_text("play", exact=True).wait_for()
    assert (
        view.locator(".count").first.inner_text().startswith(f"{len(t.events)} / {len(t.events)}")
    )


@needs_browser
def test_pairs_and_solutions_can_be_seen(page, tmp_path):
    t = grown()
    view = opened(
        page, t, tmp_path, pairs=[(1, 2)], selected=[next(n.id for n in t.nodes if n.correct)]
    )
    assert not view.locator(".pair[marker-end]").is_visible()
    view.locator(".show-pairs").check()
    assert (
        view.locator(".pair[marker-end]").evaluate("e => getComputedStyle(e).display") == "inline"
    )
    page.evaluate("document.querySelector('.rstar-tree').viewer.goto(0)")
    assert view.locator(".pair[marker-end]").evaluate("e => getComputedStyle(e).display") == "none"
    assert view.locator(".band.good:not(.solutions > *)").count() == 2


@needs_browser
@pytest.mark.parametrize("kind", ["hostile", "empty", "one", "cut off"])
def test_bad_input_draws_and_runs_nothing(page, tmp_path, kind):
    cut = grown()
    cut.events = cut.events[:7]
    tree = {
        "hostile": hostile_tree(),
        "empty": Tree("e", "nothing", nodes=[]),
        "one": Tree("o", "only a root"),
        "cut off": cut,
    }[kind]
    page.goto(write_tree_page(tree, tmp_path / "t.html").as_uri())
    page.wait_for_selector(".rstar-tree")
    for i in range(len(tree.nodes)):
        page.evaluate("i => document.querySelector('.rstar-tree').viewer.pick(i)", i)
    if kind == "hostile":
        assert page.locator(".rstar-tree h4").inner_text().startswith(HOSTILE[0])
        page.evaluate("document.querySelector('.rstar-tree').viewer.pick(1)")
        assert page.locator("pre.step").inner_text() == HOSTILE[0]
    assert page.evaluate("window.hacked") is None
    assert page.locator(".rstar-tree script, .rstar-tree img").count() == 0
    assert page.problems == []
    assert [u for u in page.requests if not u.startswith("file:")] == []


@needs_browser
def test_policy_of_the_page_refuses_other_scripts(page, tmp_path):
    opened(page, grown(), tmp_path)
    page.evaluate(
        """() => {
            const s = document.createElement('script');
            s.textContent = 'window.hacked = 1';
            document.body.append(s);
        }"""
    )
    assert page.evaluate("window.hacked") is None and "Content Security Policy" in page.problems[0]


@needs_browser
def test_report_opens_from_disk(page, tmp_path):
    page.goto(write_report(run_folder(tmp_path)).as_uri())
    page.wait_for_selector(".pair .rstar-tree")
    for fold in page.locator("details").all():
        fold.locator("summary").click()
        fold.locator(".rstar-tree").wait_for()
    look(page, "report", whole=True)
    assert page.locator("details").count() >= 2
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 50)")
    assert page.problems == [] and page.evaluate("window.hacked") is None
    assert [u for u in page.requests if not u.startswith(("file:", "data:"))] == []


@needs_browser
def test_two_thousand_nodes(page, tmp_path, record_property):
    from test_viz import random_tree

    view = opened(page, random_tree(2000, 4), tmp_path)
    assert 60 < view.locator(".n[data-node]:not(.off)").count() < 200
    view.locator(".show-all").check()
    assert view.locator(".n[data-node]:not(.off)").count() >= 2000
    ms = page.evaluate("""() => {
        const v = document.querySelector('.rstar-tree').viewer, times = [];
        v.goto(0);
        for (let i = 1; i < 200; i++) {
            const start = performance.now();
            v.goto(i);
            document.body.getBoundingClientRect();
            times.push(performance.now() - start);
        }
        return times.sort((a, b) => a - b)[100];
    }""")
    record_property("median_ms_per_step_2000_nodes", ms)
    print(f"a step of the scrubber at 2000 nodes: {ms:.1f} ms (median)")


# -- JupyterLab ------------------------------------------------------------------------------------

CELL = """import sys; sys.path.insert(0, {tests!r})
from test_browser import grown
from rstar_nb.show.widget import TreeWidget
w = TreeWidget(grown())
w"""


def notebook(path, cells, outputs=()):
    import nbformat as nf

    nb = nf.v4.new_notebook(cells=[nf.v4.new_code_cell(c) for c in cells])
    for cell, out in zip(nb.cells, outputs):
        cell.outputs = out
    nb.metadata.kernelspec = dict(name="python3", display_name="Python 3", language="python")
    nf.write(nb, path)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed")
    home = tmp_path_factory.mktemp("lab")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    env = dict(
        os.environ,
        HOME=str(home),
        JUPYTER_CONFIG_DIR=str(home / "config"),
        JUPYTER_DATA_DIR=str(home / "data"),
        JUPYTER_RUNTIME_DIR=str(home / "run"),
        PYTHONPATH=str(Path(__file__).parent.parent),
        OMP_NUM_THREADS="1",
    )
    (home / "nbs").mkdir()
    settings = home / "config" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(
        '{"fetchNews": "false", "checkForUpdates": false}'
    )
    log = open(home / "log", "w")
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "jupyterlab",
            "--no-browser",
            f"--port={port}",
            "--ServerApp.ip=127.0.0.1",
            "--IdentityProvider.token=",
            "--ServerApp.allow_root=True",
            f"--ServerApp.root_dir={home / 'nbs'}",
        ],
        env=env,
        stdout=log,
        stderr=log,
    )
    url = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{url}/api", timeout=5)
            break
        except OSError:
            assert server.poll() is None, (home / "log").read_text()
            time.sleep(0.1)
    yield url, home / "nbs"
    server.terminate()
    server.wait(20)
    log.close()


NOISE = (
    "favicon",
    "/api/",
    "ERR_INTERNET",
    "Failed to load resource",
)  # of JupyterLab itself, without a network


def errors(page):
    return [p for p in page.problems if not any(n in p for n in NOISE)]


def run_all(page, url, name):
    page.goto(f"{url}/lab/tree/{name}?reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=90_000)
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=90_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()


@needs_browser
def test_widget_in_jupyterlab(page, lab):
    url, folder = lab
    notebook(
        folder / "live.ipynb",
        [
            CELL.format(tests=str(Path(__file__).parent)),
            "w.selected_node = 2; w.position = 4; w.c = 0.5",
            "print('picked', w.selected_node, w.position, w.c)",
        ],
    )
    run_all(page, url, "live.ipynb")
    view = page.locator(".jp-OutputArea .rstar-tree")
    view.wait_for(timeout=90_000)
    page.wait_for_selector(".rstar-tree .n.picked[data-node='2']")
    assert view.locator("pre.step").inner_text() == grown().nodes[2].step
    assert view.locator(".count").first.inner_text().startswith("4 / ")
    assert view.locator(".c-value").inner_text() == "0.50"
    view.locator(".n[data-node='1']").click()
    cells = page.locator(".jp-Notebook .jp-Cell").count()
    for key in ("b", "d", "w", "Home", "ArrowRight", "a", "a"):
        page.keyboard.press(key)
    assert page.locator(".jp-Notebook .jp-Cell").count() == cells
    assert view.locator(".n.picked").get_attribute("data-node") == "0"
    page.evaluate("document.querySelector('.rstar-tree').viewer.goto(6)")
    page.evaluate("document.querySelector('.rstar-tree').viewer.pick(3)")
    view.locator("input.c").fill("1.5")
    look(page, "widget")
    page.locator(".jp-Notebook .jp-Cell").nth(2).locator(".cm-content").click()
    page.keyboard.press("Shift+Enter")
    page.get_by_text("picked 3 6 1.5").wait_for(timeout=30_000)
    assert errors(page) == []


@needs_browser
def test_untrusted_first_open_shows_the_picture(page, lab):
    import nbformat as nf

    url, folder = lab
    still, sizes = TreeWidget(grown())._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in still
    notebook(
        folder / "saved.ipynb",
        ["w"],
        [[nf.v4.new_output("display_data", data=still, metadata=sizes)]],
    )
    page.goto(f"{url}/lab/tree/saved.ipynb?reset")
    page.wait_for_selector(".jp-OutputArea img", timeout=90_000)
    assert page.evaluate("document.querySelector('.jp-OutputArea img').naturalWidth") > 300
    assert page.locator(".jp-OutputArea .rstar-tree").count() == 0


PICTURES = [
    "06_seeing_trees",
    "07_reward_model",
    "inside/show_arms",
    "inside/show_curves",
    "inside/show_dashboard",
    "inside/show_drawing",
    "inside/show_live",
    "inside/show_picture",
    "inside/show_playground",
    "inside/show_rounds",
    "inside/show_two_rounds",
    "inside/show_widget",
]


@needs_browser
@pytest.mark.parametrize("name", PICTURES)
def test_first_open_of_a_lesson_shows_its_pictures(page, lab, name):
    """The notebook as it is in the repository, in a JupyterLab that has never seen it.

    So it is not trusted, and nothing in it runs.
    """
    url, folder = lab
    source = Path(__file__).parent.parent / "nbs" / f"{name}.ipynb"
    shutil.copy(source, folder / source.name)
    cells = json.loads(source.read_text())["cells"]
    with_picture = [
        k
        for k, c in enumerate(cells)
        for o in c.get("outputs", [])
        if "image/png" in o.get("data", {})
    ]
    page.goto(f"{url}/lab/tree/{source.name}?reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    assert page.locator(".jp-StatusBar-TrustedItem, [title*='trusted']").count()
    for k in with_picture:
        cell = page.locator(f".jp-Notebook [data-windowed-list-index='{k}']")
        page.wait_for_function(
            """k => {
                const place = `.jp-Notebook [data-windowed-list-index='${k}']`;
                const cell = document.querySelector(place);
                if (cell) cell.scrollIntoView();
                return cell;
            }""",
            arg=k,
        )
        cell.locator(".jp-OutputArea img").first.wait_for()
        widths = cell.locator(".jp-OutputArea img").evaluate_all(
            """async imgs => {
                await Promise.all(imgs.map(i => i.decode()));
                return imgs.map(i => i.naturalWidth);
            }"""
        )
        assert widths and min(widths) > 100, (k, widths)
        if k == with_picture[-1]:
            look(page, f"untrusted_{source.stem}")
    assert page.locator(".rstar, .jp-RenderedHTMLCommon .lm-Widget.jupyter-widgets").count() == 0
    assert errors(page) == []


def finished_run(path):
    """A finished run's folder with times, of two rounds."""
    run = run_folder(path, "source")
    settings = Settings().with_values({"rounds": 2, "problems.number": (2,)})
    (run / "config.json").write_text(json.dumps(dict(settings=asdict(settings))))
    (run / "round_0").mkdir()
    for k, phases in enumerate([("base", "evaluate"), *[("search", "sft", "ppm", "evaluate")] * 2]):
        append_lines(
            run / f"round_{k}" / "times.jsonl",
            [dict(phase=p, seconds=30.0 + 10 * i) for i, p in enumerate(phases)],
        )
        if k:
            trees = run / f"round_{k}" / "search.jsonl"
            rows = [dict(json.loads(line), solved=True) for line in open(trees, encoding="utf-8")]
            trees.unlink()
            append_lines(trees, rows)
    return run


@needs_browser
def test_dashboard_follows_a_run_of_another_process(page, lab, tmp_path):
    url, folder = lab
    source = Path(os.environ.get("RSTAR_FINISHED_RUN") or finished_run(tmp_path))
    run = tmp_path / "live"
    writer = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "follow_run.py"), str(source), str(run)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def step():
        writer.stdin.write("\n")
        writer.stdin.flush()
        return writer.stdout.readline().strip()

    try:
        assert writer.stdout.readline().strip() == "locked"
        assert step() == "config"
        notebook(
            folder / "follow.ipynb",
            [
                "from rstar_nb.show.dashboard import Dashboard\n"
                f"d = Dashboard({str(run)!r}, every=.1)\nd",
                "print(d.run.state(), d.status['table'][0])",
            ],
        )
        run_all(page, url, "follow.ipynb")
        view = page.locator(".jp-OutputArea .rstar-run")
        view.locator(".state.running").wait_for()
        assert (
            "round 0" in view.locator(".line").inner_text()
            and view.locator(".rstar-tree").count() == 0
        )
        last, said = len((source / "metrics.jsonl").read_text().splitlines()) - 1, ""
        while said != f"round {last}, metrics":
            said = step()
            k, what = re.match(r"round (\d+), (.+)", said).groups()
            if what.endswith("trees"):
                view.get_by_text(f"{what.split()[0]} of ").wait_for()
                view.locator(".rstar-tree .n").first.wait_for()
                assert f"round {k} of {last}, search" in view.locator(".line").inner_text()
                look(page, f"dashboard_{said.replace(', ', '_').replace(' ', '_')}")
            elif what == "metrics":
                page.wait_for_function(
                    """k => {
                        const rows = document.querySelectorAll('.rstar-run .rounds tbody tr');
                        return !rows[k] || rows[k].cells[6].textContent.includes('%');
                    }""",
                    arg=int(k),
                )
        writer.stdin.close()
        assert writer.wait(60) == 0
        view.wait_for(
            state="detached"
        )  # the run has ended: the picture takes the place of the widget
        page.locator(".jp-OutputArea img").first.wait_for()
        assert (
            page.locator(".jp-OutputArea img").first.evaluate(
                "async i => { await i.decode(); return i.clientWidth; }"
            )
            > 300
        )
        look(page, "dashboard_finished")
    finally:
        writer.kill()
    assert page.evaluate("window.hacked") is None and errors(page) == []


@needs_browser
def test_a_wide_picture_fits_the_page(page, lab):
    url, folder = lab
    notebook(
        folder / "wide.ipynb",
        [
            f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            "from test_viz import random_tree\n"
            "from rstar_nb.show.trees import show_trees\n"
            "show_trees([random_tree(30, 4), random_tree(30, 5)])"
        ],
    )
    run_all(page, url, "wide.ipynb")
    img = page.locator(".jp-OutputArea img").first
    img.wait_for()
    wide, room = img.evaluate(
        "async i => { await i.decode(); return [i.clientWidth, i.parentElement.clientWidth]; }"
    )
    look(page, "wide")
    assert 0.9 * room < wide <= room


@needs_browser
def test_playground_in_jupyterlab(page, lab):
    url, folder = lab
    notebook(
        folder / "arms.ipynb",
        ["from rstar_nb.show.playground import Playground\np = Playground()\np"],
    )
    run_all(page, url, "arms.ipynb")
    view = page.locator(".jp-OutputArea .rstar")
    view.wait_for()
    view.get_by_role("button", name="a hundred pulls").click()
    view.locator(".count", has_text="100 pulls").wait_for()
    look(page, "playground")

    def bounds():
        return [float(r.get_attribute("data-bound")) for r in view.locator("[data-arm]").all()]

    before = bounds()
    view.locator("input.c").fill("3")
    if bounds() == before:
        page.wait_for_function(
            "b => document.querySelector('.rstar-bandit [data-arm]').dataset.bound !== b",
            arg=view.locator("[data-arm]").first.get_attribute("data-bound"),
        )
    assert all(b > a for a, b in zip(before, bounds(), strict=True))
    assert errors(page) == []


def test_playground_tells_its_view_of_every_step():
    from rstar_nb.show.playground import Playground

    p, heard = Playground(), []
    p.observe(lambda change: heard.append(len(change["new"])), "moments")
    p.step()
    p.step(100)
    p.c = 3.0
    p.arms = [0.1, 0.9]
    p.step(5)
    assert heard == [2, 102, 102, 1, 6]
