"""The pipeline of pandas and NumPy: the same report on a cluster as without one."""

from __future__ import annotations

import pytest

pytest.importorskip("distributed", reason="the extra [dask] is not installed")
pytest.importorskip("pandas")

import distributed
import pandas as pd
from hamilton import driver

from examples.prices_on_dask import pipeline
from traced_threadpool import FutureAdapter
from traced_threadpool.backends import Dask


def test_the_report_is_that_of_plain_hamilton() -> None:
    """And every node that is for the cluster ran on one of its workers."""
    wanted, inputs = ["report"], {"rows": 500}
    plain = driver.Builder().with_modules(pipeline).build().execute(wanted, inputs=inputs)["report"]
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
        FutureAdapter(8, metrics=False, backends={"cluster": Dask(client)}, record=True) as adapter,
    ):
        built = driver.Builder().with_modules(pipeline).with_adapters(adapter).build()
        report = built.execute(wanted, inputs=inputs)["report"]
        (run,) = adapter.recorded_runs
    pd.testing.assert_frame_equal(report, plain)
    assert {node.name for node in run.nodes if not node.backend} == {"report"}
    assert len({node.worker for node in run.nodes if node.backend}) == 1
