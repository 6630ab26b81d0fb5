import subprocess
import sys

import pytest


def rstar(*args):
    done = subprocess.run([sys.executable, "-c", "from rstar_nb.cli import main; main()", *args], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("args, message", [
    (("evolve", "--set", "rollout=3"), "unknown setting 'rollout=3'"),
    (("evolve", "--out", "OUT", "--resume"), "start the run without --resume"),
    (("evolve", "--out", "OUT", "--quiet", "--set", "test_file=OUT/none.jsonl", "--set", "base_steps=1,1", "--set", "seed_solutions=12"), "no such file"),
    (("tree", "OUT", "--problem", "x"), "no such run"),
    (("report", "OUT"), "no metrics.jsonl"),
    (("solve", "1 + 1?", "--run", "OUT"), "no finished round"),
])
def test_errors_are_one_clear_line(tmp_path, args, message):
    code, out, err = rstar(*(a.replace("OUT", str(tmp_path / "out")) for a in args))
    assert code == 1 and message in err and err.startswith("error: ") and err.count("\n") == 1, err


def test_doctor_names_the_isolation():
    code, out, err = rstar("doctor")
    assert code == 0 and "torch" in out and "layers:" in out


def test_settings_lists_every_setting():
    import dataclasses
    from rstar_nb.settings import Settings
    code, out, err = rstar("settings")
    assert code == 0 and {f.name for f in dataclasses.fields(Settings)} <= {line.split("=")[0] for line in out.splitlines()}
