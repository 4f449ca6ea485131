"""A file has one subject and can be read in one go: how long it may be, and who has a reason to be longer."""

from __future__ import annotations

from tests.house.layers import FILES, ROOT

LINES_IN_SOURCE = 450
LINES_IN_TESTS = 600
REASON = "# Longer than 450 lines: "


def _lines(path: str) -> int:
    return len((ROOT / path).read_text(encoding="utf-8").splitlines())


SOURCE = [file.relative_to(ROOT).as_posix() for file in FILES]
TESTS = [file.relative_to(ROOT).as_posix() for file in sorted((ROOT / "tests").rglob("*.py"))]


def test_a_long_file_of_the_package_says_why_at_its_top() -> None:
    """In a comment before its first import, as `# Longer than 450 lines: it is one table`."""
    long = {path for path in SOURCE if _lines(path) > LINES_IN_SOURCE and REASON not in _top(path)}
    assert long == set()


def test_a_reason_goes_with_the_length() -> None:
    """A file that has become shorter needs none."""
    assert {path for path in SOURCE if REASON in _top(path) and _lines(path) <= LINES_IN_SOURCE} == set()


def test_no_file_of_tests_is_long() -> None:
    """One subject a file."""
    assert {path for path in TESTS if _lines(path) > LINES_IN_TESTS} == set()


def _top(path: str) -> str:
    text = (ROOT / path).read_text(encoding="utf-8")
    return text.partition("\nimport ")[0].partition("\nfrom ")[0]
