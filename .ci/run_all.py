"""Run lessons as a reader does: in JupyterLab, with Run All Cells.

    python .ci/run_all.py --jupyter .venv/bin/jupyter 04_ucb

This script needs playwright and a Chromium; JupyterLab and the kernel run in the environment of
`--jupyter`, which may be another one and stays as it is. A lesson is copied without its outputs,
so nothing that was saved before can pass for a result. Every code cell must get its number and
none may end in an error.
"""

import argparse
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic")
MINUTES = 5  # most for one lesson, on a busy machine too
IN_PAGE = """() => {
    const widget = window.jupyterapp.shell.currentWidget;
    const model = widget?.content?.model;
    if (!model) return null;
    const cells = model.toJSON().cells.filter(c => c.cell_type === 'code');
    return {
        counts: cells.map(c => c.execution_count),
        errors: cells.flatMap(c => c.outputs.filter(o => o.output_type === 'error'))
            .map(o => `${o.ename}: ${o.evalue}`),
        kernel: widget.sessionContext?.session?.kernel?.status ?? null,
    };
}"""
ENDED = f"""() => {{
    const state = ({IN_PAGE})();
    return state.errors.length || (state.kernel === 'idle' && !state.counts.includes(null));
}}"""


def copy_of_the_course(home: Path):
    """The notebooks without outputs, beside the figures that they read."""
    shutil.copytree(NBS, home / "nbs", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    (home / "figures").symlink_to(ROOT / "figures")
    for path in (home / "nbs").rglob("*.ipynb"):
        notebook = json.loads(path.read_text())
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                cell |= dict(outputs=[], execution_count=None)
        path.write_text(json.dumps(notebook))


def environment(home: Path) -> dict:
    """No settings of the user's and no news from the network."""
    folder = home / "config" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    folder.mkdir(parents=True)
    quiet = dict(fetchNews="false", checkForUpdates=False)
    (folder / "notification.jupyterlab-settings").write_text(json.dumps(quiet))
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    folders = dict(CONFIG="config", DATA="data", RUNTIME="run")
    env |= {f"JUPYTER_{name}_DIR": str(home / folder) for name, folder in folders.items()}
    return env | dict(HOME=str(home))


@contextmanager
def jupyter_lab(jupyter: str, home: Path):
    """A server for the copied course, as (address, token)."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    token = secrets.token_hex(16)
    url = f"http://127.0.0.1:{port}"
    options = (
        "--no-browser",
        f"--port={port}",
        "--ServerApp.port_retries=0",
        "--ServerApp.ip=127.0.0.1",
        "--ServerApp.allow_root=True",
        f"--ServerApp.root_dir={home / 'nbs'}",
        f"--IdentityProvider.token={token}",
        "--LabApp.expose_app_in_browser=True",  # `IN_PAGE` asks it
    )
    log = home / "log"
    with open(log, "w") as out:
        command = [os.path.abspath(jupyter), "lab", *options]
        server = subprocess.Popen(command, env=environment(home), stdout=out, stderr=out)
    try:
        end = time.monotonic() + 60 * MINUTES
        while True:
            try:
                urllib.request.urlopen(f"{url}/api", timeout=5).close()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > end:
                    raise SystemExit(f"JupyterLab did not start:\n{log.read_text()}") from None
                time.sleep(0.1)
        yield url, token
    except Exception:
        print(log.read_text(), file=sys.stderr)
        raise
    finally:
        server.terminate()
        server.wait()


def run_all(page, url: str, token: str, name: str) -> dict:
    """Open a lesson, choose Run All Cells, wait until it has ended; what its cells hold then."""
    page.goto(f"{url}/lab/tree/{name}.ipynb?reset&token={token}")
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    page.wait_for_function(ENDED, polling=200)
    return page.evaluate(IN_PAGE)


def complaint(name: str, state: dict) -> str:
    """What is wrong with a lesson that has run, '' for nothing."""
    cells = json.loads((NBS / f"{name}.ipynb").read_text())["cells"]
    number = sum(c["cell_type"] == "code" for c in cells)
    done = [count for count in state["counts"] if count]
    if state["errors"]:
        return f"a cell after {len(done)} of {number} ended in {state['errors'][0]}"
    if number == 0 or done != list(range(1, number + 1)):
        return f"{number} code cells, numbered {state['counts']}"
    return ""


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", help="lessons, such as 04_ucb")
    parser.add_argument("--jupyter", required=True, help="the program of the environment to test")
    args = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print("no Chromium on this machine (Debian: apt-get install chromium), nothing was run")
        sys.exit(os.environ.get("RSTAR_CI", "") not in ("", "0"))
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        copy_of_the_course(home)
        with jupyter_lab(args.jupyter, home) as (url, token), sync_playwright() as p:
            chromium = p.chromium.launch(executable_path=browser, args=FLAGS)
            for name in args.names:
                start = time.monotonic()
                page = chromium.new_page(viewport=dict(width=1300, height=900))
                page.set_default_timeout(60_000 * MINUTES)
                state = run_all(page, url, token, name)
                if wrong := complaint(name, state):
                    sys.exit(f"{name}, Run All Cells: {wrong}")
                cells, seconds = len(state["counts"]), time.monotonic() - start
                print(f"{name}, Run All Cells: {cells} code cells, {seconds:.1f} s", flush=True)
                page.close()
            chromium.close()


if __name__ == "__main__":
    main()
