"""A wheel carries the course, too: lessons, labs and the records they read, in rstar_nb/course.

All else about the package stands in pyproject.toml. An editable install finds the course in the
checkout, where it is edited.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__")


class BuildWithCourse(build_py):
    """Copies `nbs` and `figures` beside the modules."""

    def run(self):
        super().run()
        if self.editable_mode:
            return
        course = Path(self.build_lib) / "rstar_nb" / "course"
        shutil.rmtree(course, ignore_errors=True)
        for part in ("nbs", "figures"):
            shutil.copytree(ROOT / part, course / part, ignore=LEFT_OUT)


setup(cmdclass={"build_py": BuildWithCourse})
