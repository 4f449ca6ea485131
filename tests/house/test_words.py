"""One word for one thing, and the field's own: words that were given up are in no code, document, output or message."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

import pytest

from tests.house.layers import ROOT, listed


class Retired(NamedTuple):
    """A word that was given up, and the word that is used instead."""

    pattern: str
    instead: str
    only_in: str = ""
    """Where it is looked for, as a pattern of paths: elsewhere the same word means another thing."""


RETIRED = [
    Retired(r"\binterpreter(’s|'s)? lock", "GIL"),
    Retired(r"\binterpreter_lock", "GIL"),
    Retired(r"(?<!span )(?<!platform\.)\bprocessors?\b", "CPU or core; a span processor is called that"),
    Retired(r"\bconvoys\b|\bwhole_file\b|\bfree_threading\b", "lock_backoff, atomic_write, concurrency"),
    Retired(r"\b(let_)?holder_go_on\b|\blets? (the|its) holder go on\b", "yield_to_holder"),
    Retired(r"\bledgers?\b", "metrics store"),
    Retired(r"\btall(y|ies)\b|\bTallying\b", "histogram, or count"),
    Retired(r"\bboards?\b", "shared memory", only_in=r"^(src|tests/waits|docs/waits)"),
    Retired(r"\bseats?\b", "worker row"),
    Retired(r"\bkeepers?\b", "supervisor"),
    Retired(r"\b(a|an|each|every|one|per|all|no|of|few|more|many|\d+) looks?\b(?! (up|for|at|into|like))", "sample"),
    Retired(
        r"\b[Ll]eaf\b|\b(the|each|all|of|its) leaves\b",
        "detector",
        only_in=r"^(src/.*/analysis|src/.*/report|docs|README)",
    ),
    Retired(r"\bas (it|they) comes?\b|\bas_(it|they)_comes?\b", "default settings"),
    Retired(r"\blongest chain of nodes\b", "critical path"),
    Retired(r"\bturns? what into what\b", "responsibility"),
    Retired(r"\brooms?\b", "package, or space"),
    Retired(r"\bmend(s|ed|ing)?\b", "fix"),
    Retired(r"\bbe had\b", "was not available"),
    Retired(r"\bseen red\b", "nothing: that a test can fail is expected"),
    Retired(r"\bcosts its spans\b", "spans are dropped"),
    Retired(r"\bis no list of\b", "is not a comma-separated list of"),
    Retired(r"\bask for less\b", "request less data"),
    Retired(r"\d ?us\b", "µs"),
]

NOT_HERE = re.compile(
    r"^(CHANGELOG\.md|LICENSE|docs/internals/|requirements/|tests/house/test_words\.py)|/assets/echarts"
)
"""A list of changes names what was changed, and what was tried is told in the words of its time."""
SPAN_PROCESSORS = re.compile(r"SpanProcessor|[Ss]pan processor|span_processor|receivers")


@cache
def texts() -> dict[str, str]:
    """Each text file of the repository, as one line without the marks of comments: a phrase may go over two lines."""
    found = {}
    for path in listed():
        if re.search(
            r"\.(py|md|yaml|toml|js|css|html|ts|c|sh)$|^\.ci/|^Makefile$|^scripts/", path
        ) and not NOT_HERE.search(path):
            lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
            found[path] = " ".join(re.sub(r"^\s*(#|//|\*|>)\s", "", line).strip() for line in lines)
    return found


def places(retired: Retired) -> list[str]:
    """Where a word still is, with the words around it."""
    found = []
    for path, text in texts().items():
        if not re.search(retired.only_in, path):
            continue
        for match in re.finditer(retired.pattern, text, re.IGNORECASE):
            if "processor" in match[0].lower() and SPAN_PROCESSORS.search(text):
                continue
            found.append(f"{path}: …{text[max(0, match.start() - 40) : match.end() + 30]}…")
    return found


@pytest.mark.parametrize("retired", RETIRED, ids=lambda retired: retired.instead)
def test_a_word_that_was_given_up_is_gone(retired: Retired) -> None:
    """Each place is shown, so that it can be changed."""
    assert places(retired) == [], f"say instead: {retired.instead}"


@pytest.mark.parametrize(
    "text",
    [
        "it waits for the interpreter's lock",
        "4 processors",
        "the keeper's seat",
        "Mend parse first.",
        "could not be had here",
    ],
)
def test_the_patterns_find_what_they_are_for(text: str) -> None:
    """A pattern that matches nothing would keep nothing out."""
    assert [each for each in RETIRED if re.search(each.pattern, text, re.IGNORECASE)]


@pytest.mark.parametrize(
    "text", ["a span processor", "BatchSpanProcessor", "look it up", "the dashboard", "it leaves out"]
)
def test_the_patterns_leave_other_words_alone(text: str) -> None:
    """What sounds alike and means another thing."""
    assert [each for each in RETIRED if re.search(each.pattern, text, re.IGNORECASE)] == []
