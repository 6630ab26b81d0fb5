"""Settings of nbgrader for the labs: what learners get, how long a cell may run, what they see."""

from nbconvert.preprocessors import CSSHTMLHeaderPreprocessor, Preprocessor
from nbgrader.preprocessors import ClearHiddenTests, GetGrades


class HideTracebacks(Preprocessor):
    """A traceback quotes the cell it comes from: of hidden checks only the last line is shown."""

    def preprocess_cell(self, cell, resources, index):
        if "BEGIN HIDDEN TESTS" in cell.source:
            for output in cell.get("outputs", []):
                if output.output_type == "error":
                    output.traceback = [f"{output.ename}: {output.evalue}"]
        return cell, resources


c = get_config()  # noqa: F821 - nbgrader defines it
c.CourseDirectory.course_id = "rstar_nb"
# A notebook without answers runs to its end, and its checks say what is missing.
c.ClearSolutions.code_stub = {"python": "# YOUR CODE HERE\n..."}
c.Execute.timeout = 60  # seconds a cell; the checks stop a call after 2
# Solutions handed in as STUDENT_LAB.ipynb, the lab's own name in the second half.
c.FileNameCollectorPlugin.named_regexp = r".*[/\\](?P<student_id>[^/\\_]+)_(?P<file_id>\w+)"
c.GenerateFeedback.preprocessors = [
    GetGrades,
    HideTracebacks,
    ClearHiddenTests,
    CSSHTMLHeaderPreprocessor,
]
