"""Fixtures for tests that run nodes on threads."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# Hamilton's extensions for other libraries, none of which a test wants: half of the time that a process takes to start.
os.environ.setdefault("HAMILTON_AUTOLOAD_EXTENSIONS", "0")

# A terminal's width, which a test's own output would be wrapped to: tests that want one say so.
os.environ.pop("COLUMNS", None)

# A shell that starts us in the background has SIGINT ignored, and what we start would inherit that: programs which
# tests interrupt would not hear of it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from tests.dags import PATIENCE, Stage

# A busy machine fails no property, and CI tries the same examples each time.
settings.register_profile(
    "tests", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ, database=None
)
settings.load_profile("tests")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what measures, unless `-m` speaks of it or a test is named: that is `make test-measures`.

    Puts first the files with the most tests that are marked `slow`: a file goes to one process as a whole, and one that
    takes a minute should not begin when the others end.
    """
    if any("::" in argument for argument in config.args):
        return
    if "measures" not in config.option.markexpr:
        measuring = [item for item in items if item.get_closest_marker("measures")]
        config.hook.pytest_deselected(items=measuring)
        items[:] = [item for item in items if not item.get_closest_marker("measures")]
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture
def no_thread_left() -> Iterator[None]:
    """Fails a test which leaves behind a thread that would keep the process alive."""
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]
    for thread in left:
        thread.join(PATIENCE)
    assert not [thread for thread in left if thread.is_alive()]


@pytest.fixture
def stage(no_thread_left: None) -> Iterator[Stage]:
    """Events and adapters that are let go and closed at the end of the test, whatever happened."""
    stage = Stage()
    yield stage
    stage.end()
