"""What tests of the page and of the notebook share: runs, and the elements of a document."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

from tests.analysis.synthetic_runs import layered_run
from traced_threadpool.model.recorded_run import RecordedRun

EMPTY = layered_run(0)
FAILED = layered_run(30, failing=layered_run(30).nodes[5].name)
NARROW = replace(layered_run(40, workers=1, layers=1), problems=("something was repaired",))
NARROW = replace(NARROW, nodes=tuple(replace(node, task_id=f"task {node.key}") for node in NARROW.nodes))


class Elements(HTMLParser):
    """The elements of a document: their names, attributes and texts."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), []))
        if tag not in ("meta", "input", "rect", "path"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("rect", "path"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == self.found[-1][0]:
            self.found[-1][2].append(data)


def elements_of(document: str) -> list[tuple[str, dict[str, str | None], str]]:
    parser = Elements()
    parser.feed(document)
    parser.close()
    assert parser.open == []
    return [(tag, attributes, "".join(texts)) for tag, attributes, texts in parser.found]


def renamed(run: RecordedRun, rename: Callable[[str], str]) -> RecordedRun:
    """The same run with every text that a trace may bring along changed."""

    def texts(record: Any, *fields: str) -> dict[str, Any]:
        found = {field: getattr(record, field) for field in fields}
        return {field: text if text is None else rename(text) for field, text in found.items()}

    of_nodes = ("name", "worker", "task_id", "error_type", "failed_upstream")
    return replace(
        run,
        nodes=tuple(replace(node, **texts(node, *of_nodes)) for node in run.nodes),
        gil_holders={rename(name): ns for name, ns in run.gil_holders.items()},
        problems=tuple(map(rename, run.problems)),
        **texts(run, "id", "name", "pool", "error_type", "attribution", "attribution_reason"),
    )


def check_that_no_text_makes_an_element(run: RecordedRun, shown: Callable[[RecordedRun], str]) -> None:
    """A record whose every text is markup has the elements of a tame one."""
    tame, nasty = (shown(renamed(run, rename)) for rename in ("a_{}".format, "<b onclick=x>{}</b>\"'&amp;".format))
    outlines = [[(tag, list(attributes)) for tag, attributes, _ in elements_of(each)] for each in (tame, nasty)]
    assert outlines[0] == outlines[1]
    assert not re.search(r"<(?!script|style)[^>]*(?:\son\w+=|https?:|url\()", nasty.partition("<script>")[0])
