"""What the tests of metrics share: an adapter with a registry of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from traced_threadpool import FutureAdapter


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def adapter(registry: CollectorRegistry) -> Iterator[FutureAdapter]:
    with FutureAdapter(max_workers=2, tracing=False, registry=registry) as adapter:
        yield adapter


@pytest.fixture
def one_worker(registry: CollectorRegistry) -> Iterator[FutureAdapter]:
    with FutureAdapter(max_workers=1, tracing=False, registry=registry) as adapter:
        yield adapter
