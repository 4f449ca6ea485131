"""Runs the pipeline on a Dask cluster of two processes on this machine, or on one whose address is given."""

import argparse
from typing import Any

from distributed import Client, LocalCluster
from hamilton import driver

from traced_threadpool import FutureAdapter
from traced_threadpool.backends import Dask

from . import pipeline

ROWS = 200_000


def main() -> None:
    parser = argparse.ArgumentParser(prog="prices_on_dask", description="Fit models of prices on a Dask cluster.")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of a cluster (default: one of two processes, here)")
    parser.add_argument("--rows", type=int, default=ROWS, help="houses in each town (default: %(default)s)")
    options = parser.parse_args()
    if options.scheduler is not None:
        run(Dask(options.scheduler), options.rows)
        return
    local: Any = LocalCluster  # neither has annotations
    connect: Any = Client
    with local(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster, connect(cluster) as client:
        run(Dask(client), options.rows)


def run(cluster: Dask, rows: int) -> None:
    with FutureAdapter(8, name="prices", backends={"cluster": cluster}, record=True) as adapter:
        prices = driver.Builder().with_modules(pipeline).with_adapters(adapter).build()
        print(prices.execute(["report"], inputs={"rows": rows})["report"].round(0))
    print()
    print(adapter.recorded_runs[-1].explain())


if __name__ == "__main__":
    main()
