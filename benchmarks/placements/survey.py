"""The survey of the standard library, once on an adapter: how long it takes."""

from __future__ import annotations

import sysconfig
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from examples.stdlib_survey.catalogue_server import serving
from examples.stdlib_survey.chapters import CHAPTERS
from examples.stdlib_survey.survey import build_driver, run_survey

LATENCY_SECONDS = 0.05


@contextmanager
def surveying(limit: int) -> Iterator[Callable[[Any], float]]:
    """Gives what surveys so many files, all if 0, on an adapter, and tells the seconds."""
    warnings.filterwarnings("ignore", category=SyntaxWarning)  # an escape in some library's source
    with serving(CHAPTERS, LATENCY_SECONDS) as url, TemporaryDirectory(prefix="placements-") as directory:

        def survey(adapter: Any) -> float:
            began = time.perf_counter()
            run_survey(
                build_driver([adapter]),
                stdlib_root=Path(sysconfig.get_paths()["stdlib"]),
                catalogue_url=url,
                work_directory=Path(directory),
                limit=limit,
            )
            return time.perf_counter() - began

        yield survey
