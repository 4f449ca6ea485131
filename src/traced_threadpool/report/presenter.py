"""What a recorded run does when it is asked to show or to save itself."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path

from traced_threadpool.analysis.diagnosis.advice import expected_gain, title
from traced_threadpool.analysis.trace_file import save_runs
from traced_threadpool.model.atomic_write import write_whole
from traced_threadpool.model.formatting import one_line
from traced_threadpool.model.recorded_run import RecordedRun
from traced_threadpool.report.explanation import Explanation
from traced_threadpool.report.explanation import explain as explained
from traced_threadpool.report.notebook import explanation_html, notebook_html

__all__ = ["explain", "notebook_html", "report", "save"]


class ShownExplanation(Explanation):
    """An explanation that shows itself: `print` as text, a notebook as a page, a prompt in one line."""

    def __str__(self) -> str:
        try:
            from traced_threadpool.report.terminal import explanation_text, plain
        except ImportError as error:
            return f"{self._findings()}\n\n(the tables need {error.name}: pip install 'traced_threadpool[report]')"
        return plain(explanation_text(self)).rstrip()

    def __repr__(self) -> str:
        return f"<Explanation of {self.run.name}: {'; '.join(map(title, self.findings))}>"

    def _repr_html_(self) -> str:
        return explanation_html(self)

    def _findings(self) -> str:
        lines = []
        for number, finding in enumerate(self.findings, 1):
            gain = expected_gain(finding, self.run)
            lines += [f"{number}. {title(finding)}", *(f"   - {each}" for each in finding.evidence)]
            lines += [f"   {each}" for each in (finding.advice, gain) if each]
        return "\n".join(map(one_line, [*lines, *self.remarks]))


def explain(run: RecordedRun) -> ShownExplanation:
    """For `RecordedRun.explain`."""
    found = explained(run)
    return ShownExplanation(**{each.name: getattr(found, each.name) for each in fields(found)})


def save(run: RecordedRun, path: str | os.PathLike[str]) -> None:
    """For `RecordedRun.save`."""
    save_runs(path, [run])


def report(run: RecordedRun, path: str | os.PathLike[str]) -> Path:
    """For `RecordedRun.report`."""
    try:
        from traced_threadpool.report.page import page
    except ImportError as error:
        raise ImportError(
            f'a page needs packages that are not there ({error}): pip install "traced_threadpool[report]"',
            name=error.name,
        ) from error
    write_whole(path, page(explained(run)))
    return Path(path).absolute()
