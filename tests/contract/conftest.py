"""Each of the two adapters, for tests that run on both."""

from __future__ import annotations

from typing import Any

import pytest
from hamilton.plugins import h_threadpool

import traced_threadpool


@pytest.fixture(
    params=[
        pytest.param(h_threadpool.FutureAdapter, id="hamilton"),
        pytest.param(traced_threadpool.FutureAdapter, id="ours"),
    ]
)
def adapter_class(request: pytest.FixtureRequest, no_thread_left: None) -> type[Any]:
    """The class under test."""
    chosen: type[Any] = request.param
    return chosen
