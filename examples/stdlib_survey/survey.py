"""A directory of sources into a report: the pipeline, composed with whatever adapters it is to run on."""

from collections.abc import Iterable
from pathlib import Path
from tempfile import mkdtemp

from hamilton import driver
from hamilton.execution.executors import SynchronousLocalTaskExecutor
from hamilton.lifecycle import LifecycleAdapter

from . import joins, pipeline, pipeline_parallelizable
from .records import SurveyReport


def build_driver(adapters: Iterable[LifecycleAdapter] = (), *, parallelizable: bool = False) -> driver.Driver:
    """A Hamilton driver for one of the two pipelines."""
    builder = driver.Builder()
    builder = builder.with_adapters(*adapters)
    if not parallelizable:
        return builder.with_modules(pipeline, joins).build()
    return (
        builder.with_modules(pipeline_parallelizable, joins)
        .enable_dynamic_execution(allow_experimental_mode=True)
        # Branches are handed out one by one in this thread; it is the adapter that runs them side by side.
        .with_remote_executor(SynchronousLocalTaskExecutor())
        .build()
    )


def run_survey(
    survey_driver: driver.Driver,
    *,
    stdlib_root: Path,
    catalogue_url: str,
    work_directory: Path,
    limit: int = 0,
) -> SurveyReport:
    """Run the pipeline once, with a new database in a directory of its own below `work_directory`."""
    results = survey_driver.execute(
        ["report"],
        inputs={
            "stdlib_root": stdlib_root,
            "limit": limit,
            "catalogue_url": catalogue_url,
            "work_directory": Path(mkdtemp(dir=work_directory)),
        },
    )
    report: SurveyReport = results["report"]
    return report
