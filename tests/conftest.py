"""In CI a skipped test fails: `RSTAR_CI=1 pytest` has the browser, SmolLM2 and all else."""

import os

import pytest

# Beginnings of the reasons that hold in CI too.
MAY_BE_SKIPPED = (
    "llama-cpp-python[server]",  # compiling a server takes longer than all tests together
    "no ../shared/data beside",  # real data that does not belong to the repository
    "the real data lies beside",
    "may not look into another process here",  # depends on the machine's ptrace policy
)


def in_ci() -> bool:
    return os.environ.get("RSTAR_CI", "") not in ("", "0")


def fail_if_skipped(report):
    """Turn the report of a skipped test into that of a failed one, unless its reason is listed."""
    if not (in_ci() and report.skipped) or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if not reason.startswith(MAY_BE_SKIPPED):
        report.outcome = "failed"
        report.longrepr = f"skipped where RSTAR_CI is set, which no test may be: {reason}"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport():
    outcome = yield
    fail_if_skipped(outcome.get_result())


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report():
    outcome = yield
    fail_if_skipped(outcome.get_result())
