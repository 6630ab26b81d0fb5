import json
import shutil
import subprocess
import sys

import pytest


def rstar(*args):
    done = subprocess.run(
        [sys.executable, "-c", "from rstar_nb.cli.main import main; main()", *args],
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "args, message",
    [
        (("evolve", "--set", "rollout=3"), "unknown setting 'rollout'; did you mean"),
        (("evolve", "--out", "OUT", "--resume"), "start the run without --resume"),
        (
            (
                "evolve",
                "--out",
                "OUT",
                "--quiet",
                "--set",
                "problems.test_file=OUT/none.jsonl",
            ),
            "no such file",
        ),
        (("tree", "OUT", "--problem", "x"), "no such run"),
        (("report", "OUT"), "no metrics.jsonl"),
        (("solve", "1 + 1?", "--run", "OUT"), "no finished round"),
    ],
)
def test_errors_are_one_clear_line(tmp_path, args, message):
    code, out, err = rstar(*(a.replace("OUT", str(tmp_path / "out")) for a in args))
    assert code == 1 and message in err and err.startswith("error: ") and err.count("\n") == 1, err


def test_doctor_names_the_isolation():
    code, out, err = rstar("doctor")
    assert code == 0 and "torch" in out and "layers:" in out


def test_debug_shows_where_an_error_came_from(tmp_path):
    nowhere = str(tmp_path / "nowhere")
    code, out, err = rstar("report", nowhere, "--debug")
    assert code != 0 and "Traceback (most recent call last)" in err
    assert "FileNotFoundError" in err and "in report" in err and f"{nowhere}: no metrics" in err
    code, out, err = rstar("report", nowhere)
    assert code == 1 and err.startswith(f"error: {nowhere}: no metrics.jsonl")
    assert err.count("\n") == 1 and "Traceback" not in err


def test_settings_lists_every_setting_with_its_range():
    from rstar_nb.evolve.settings import Settings

    code, out, err = rstar("settings")
    lines = {line.split("=")[0]: line for line in out.splitlines()}
    assert code == 0 and list(lines) == list(Settings().values())
    assert lines["search.candidates"].startswith("search.candidates=8 ")
    assert lines["search.candidates"].endswith("(1 or more)")
    assert lines["sft.start_from"].endswith("(one of base, previous)")


# --- pretrained models: a small random base in a folder stands in for one from the hub


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder of random weights, and problem files for training and testing."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from rstar_nb.policy.steps import STEP_END, plain_prompt
    from rstar_nb.policy.tiny import train_tokenizer
    from rstar_nb.problems.files import save_problems
    from rstar_nb.problems.generator import generate, gold_program

    path = tmp_path_factory.mktemp("base")
    problems = generate(24, levels=(1, 2))
    tokenizer = train_tokenizer(
        [plain_prompt(p.question) + STEP_END.join(gold_program(p.id)) + STEP_END for p in problems]
    )
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=1,
        )
    ).save_pretrained(path)
    tokenizer.save_pretrained(path)
    save_problems(problems[:4], path / "train.jsonl")
    save_problems(generate(3, "test", levels=(1,)), path / "test.jsonl")
    return path


@pytest.mark.parametrize(
    "args, message",
    [
        (("--set", "search.rollouts"), "write NAME=VALUE"),
        (
            ("--set", "search.candidates=0"),
            "search.candidates=0 is out of range; it must be 1 or more",
        ),
        (
            ("--set", "search.temperature=-1"),
            "search.temperature=-1.0 is out of range; it must be 0 or more",
        ),
        (
            ("--set", "search.rollouts=8,0"),
            "search.rollouts=0 is out of range; it must be 1 or more",
        ),
        (("--rounds", "-1"), "rounds=-1 is out of range; it must be 0 or more"),
        (("--seed", "-1"), "seed=-1 is out of range; it must be 0 or more"),
        (
            ("--set", "problems.train_file=train.jsonl"),
            "problems.train_file without problems.test_file",
        ),
    ],
)
def test_a_setting_that_makes_no_sense_is_one_clear_line(here, tmp_path, args, message):
    code, out, err = here("evolve", "--out", tmp_path / "out", *args)
    assert code == 1 and message in err and err.startswith("error: ") and err.count("\n") == 1, err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def here(monkeypatch, capsys):
    """`rstar` in this process: (exit code, stdout, stderr)."""

    def run(*args):
        from rstar_nb.cli.main import main

        monkeypatch.setattr(sys, "argv", ["rstar", *map(str, args)])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code or 0, *capsys.readouterr()

    return run


def small(base, **changes):
    """`--set NAME=VALUE` for a run of seconds; `search_rollouts=2` changes search.rollouts."""
    settings = {
        "base.examples": 6,
        "base.num_steps": "1,0",
        "rounds": 1,
        "problems.number": 4,
        "search.wave": 4,
        "search.rollouts": 1,
        "search.candidates": 2,
        "search.max_depth": 2,
        "sft.passes": 0.1,
        "sft.min_num_steps": 1,
        "sft.max_num_steps": 1,
        "reward.num_steps": 1,
        "sft.batch_size": 2,
        "reward.batch_size": 2,
        "evaluation.problems": 3,
        "evaluation.search_problems": 2,
        "evaluation.rollouts": 1,
        "evaluation.candidates": 2,
        "machine.workers": 1,
        "machine.processes": 1,
        "problems.train_file": base / "train.jsonl",
        "problems.test_file": base / "test.jsonl",
    }
    settings.update({name.replace("_", ".", 1): value for name, value in changes.items()})
    return [x for name, value in settings.items() for x in ("--set", f"{name}={value}")]


@pytest.fixture(scope="module")
def run(base, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "small"
    code, stdout, err = rstar(
        "evolve", "--preset", str(base), "--out", str(out), "--quiet", *small(base)
    )
    assert code == 0, err
    assert [m["round"] for m in json.loads(stdout.splitlines()[-1])["rounds"]] == [0, 1]
    return out


def test_a_presets_settings_yield_to_the_users(run, base):
    from rstar_nb.policy.presets import preset

    config = json.loads((run / "config.json").read_text())
    assert config["preset"] == str(base)
    assert config["settings"]["sft"]["batch_size"] == 2
    assert config["settings"]["reward"]["lr"] == preset(str(base)).settings["reward.lr"] != 5e-4
    assert (run / "round_1" / "policy" / "adapter_model.safetensors").is_file()


def test_resume_takes_the_preset_from_the_folder(run, here):
    code, out, err = here("evolve", "--out", run, "--resume", "--rounds", 2, "--quiet")
    assert code == 0, err
    assert (
        len(json.loads(out.splitlines()[-1])["rounds"]) == 3
        and (run / "round_2" / "policy" / "adapter_model.safetensors").is_file()
    )


def test_resume_from_python_takes_the_recorded_presets_models(run, monkeypatch):
    import rstar_nb.evolve.loop as loop
    from rstar_nb.evolve.loop import evolve
    from rstar_nb.evolve.pretrained import PretrainedModels

    taken = []
    begin = loop.Run

    def noted(folder, settings, executor, models, *rest):
        taken.append(models)
        return begin(folder, settings, executor, models, *rest)

    monkeypatch.setattr(loop, "Run", noted)
    before = (run / "config.json").read_text()
    evolve(run, resume=True, quiet=True)  # the run is finished: nothing is trained
    (models,) = taken
    assert isinstance(models, PretrainedModels)
    assert models.preset.name == json.loads(before)["preset"]
    assert (run / "config.json").read_text() == before


def test_a_round_added_from_python_is_the_recorded_presets(run, tmp_path):
    from dataclasses import replace

    from rstar_nb.evolve.loop import evolve, load_settings

    again = shutil.copytree(run, tmp_path / "again")
    settings = replace(load_settings(again), rounds=load_settings(again).rounds + 1)
    metrics = evolve(again, settings, resume=True, quiet=True)
    assert len(metrics) == settings.rounds + 1
    last = again / f"round_{settings.rounds}"
    assert (last / "policy" / "adapter_model.safetensors").is_file()


def test_other_models_are_refused_from_python(run):
    from types import SimpleNamespace

    from rstar_nb.evolve.loop import evolve
    from rstar_nb.evolve.tiny import TinyModels
    from rstar_nb.store import StoreError

    recorded = json.loads((run / "config.json").read_text())["preset"]
    before = {p: p.read_bytes() for p in run.glob("*.json*")}
    other = SimpleNamespace(preset=SimpleNamespace(name="smollm2-135m"))
    for models, name in ((TinyModels(), "tiny"), (other, "smollm2-135m")):
        message = f"started with the models of preset {recorded}, not {name}"
        with pytest.raises(StoreError, match=message):
            evolve(run, resume=True, quiet=True, models=models)
    assert {p: p.read_bytes() for p in run.glob("*.json*")} == before


def test_another_preset_is_refused_on_resume(run, here):
    code, out, err = here("evolve", "--out", run, "--resume", "--preset", "smollm2-135m")
    assert (
        code == 1
        and err.startswith(f"error: {run} was started with --preset")
        and err.count("\n") == 1
    )


def test_solve_and_eval_load_adapters(run, here):
    code, out, err = here(
        "solve", "What is 2 plus 2?", "--run", run, "--budget", 60, "--strategy", "greedy"
    )
    assert code == 0 and json.loads(out.splitlines()[-1])["tokens"] > 0, err
    code, out, err = here(
        "eval", run, "--strategy", "greedy,mcts", "--budget", 60, "--n", 2, "--quiet"
    )
    assert code == 0 and [
        r["strategy"].split("/")[0]
        for r in json.loads(out.splitlines()[-1])["rounds"][0]["results"]
    ] == ["greedy", "mcts"], err


def test_kinds_are_for_the_tiny_model(run, here):
    code, out, err = here("kinds", run)
    assert code == 1 and "is for the tiny model" in err and err.count("\n") == 1


def test_export_loads_in_a_process_without_this_package(run, here, tmp_path):
    code, out, err = here("export", run, tmp_path / "out", "--merge")
    assert code == 0, err
    load = (
        "import sys, torch\n"
        "from peft import AutoPeftModelForCausalLM\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "policy, merged = sys.argv[1] + '/policy', sys.argv[1] + '/merged'\n"
        "a = AutoPeftModelForCausalLM.from_pretrained(policy, dtype=torch.float32)\n"
        "b = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)\n"
        "tokenizer = AutoTokenizer.from_pretrained(policy)\n"
        "ids = tokenizer('What is 2 plus 2?', return_tensors='pt').input_ids\n"
        "print('rstar_nb' in sys.modules, float((a(ids).logits - b(ids).logits).abs().max()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", load, str(tmp_path / "out")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    ours, difference = done.stdout.split()
    assert ours == "False" and float(difference) < 0.02
    assert "rounds)" in (tmp_path / "out" / "README.md").read_text()


def test_export_says_what_is_missing(here, tmp_path):
    code, out, err = here("export", tmp_path, tmp_path / "out")
    assert (
        code == 1
        and err.startswith("error: ")
        and "rstar evolve --out" in err
        and err.count("\n") == 1
    )


@pytest.mark.parametrize(
    "name, patch, message",
    [
        ("qwen", {}, "the presets are tiny"),
        ("qwen2.5-math-7b", {}, "need a GPU and there is none here"),
        ("FOLDER", dict(free_memory=lambda device: 1000), "needs 0.0 GB of memory"),
        ("EMPTY", {}, "no config.json there"),
        ("someone/no-such-model", {}, "the hub cannot be reached"),
    ],
)
def test_a_preset_that_cannot_be_used_is_said_at_once(
    here, base, tmp_path, monkeypatch, name, patch, message
):
    import torch

    import rstar_nb.policy.weights as models

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for k, v in patch.items():
        monkeypatch.setattr(models, k, v)

    def no_network(*args, local_files_only=False, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", no_network)
    (tmp_path / "empty").mkdir()
    name = name.replace("FOLDER", str(base)).replace("EMPTY", str(tmp_path / "empty"))
    code, out, err = here("evolve", "--preset", name, "--out", tmp_path / "out", *small(base))
    assert code == 1 and err.startswith("error: ") and message in err and err.count("\n") == 1, err
    assert not (tmp_path / "out" / "config.json").exists()


def test_a_bad_problem_file_is_said_before_weights_are_looked_for(here, base, tmp_path):
    code, out, err = here(
        "evolve",
        "--preset",
        "someone/no-such-model",
        "--out",
        tmp_path / "out",
        "--set",
        f"problems.train_file={tmp_path}/none.jsonl",
        "--set",
        f"problems.test_file={base}/test.jsonl",
    )
    assert code == 1 and "none.jsonl: no such file" in err
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("{}")
    code, out, err = here("evolve", "--preset", "someone/no-such-model", "--out", tmp_path / "out")
    assert code == 1 and "holds a run already" in err


def test_ctrl_c_says_how_to_go_on(monkeypatch, capsys):
    """Typer makes an exit of Ctrl-C; the person at the terminal still reads how to go on."""
    import rstar_nb.cli.main as main
    import rstar_nb.evolve.settings as settings

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(settings, "settings_text", interrupted)
    monkeypatch.setattr(sys, "argv", ["rstar", "settings"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 130 and "with --resume" in capsys.readouterr().err
