"""A small library on disk, and its catalogue served: what the tests of the survey share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.examples.small_library import SMALL_CATALOGUE, SMALL_LIBRARY


@pytest.fixture
def small_library(tmp_path: Path) -> Path:
    """The files of `SMALL_LIBRARY` on disk."""
    root = tmp_path / "lib"
    for name, data in SMALL_LIBRARY.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


@pytest.fixture(scope="module")
def catalogue_url() -> Iterator[str]:
    from examples.stdlib_survey.catalogue_server import serving

    with serving(SMALL_CATALOGUE) as url:
        yield url
