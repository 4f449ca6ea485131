"""The public names of `engine/backends`: where nodes can run besides the adapter's own threads.

>>> from traced_threadpool.backends import Processes
>>> Processes(max_workers=2).max_workers
2
"""

from traced_threadpool.engine.backends.dask import Dask
from traced_threadpool.engine.backends.errors import (
    ClusterLost,
    NotPicklable,
    RemoteError,
    RemoteTraceback,
    WorkerCrashed,
    WorkerSetupError,
)
from traced_threadpool.engine.backends.processes import Processes
from traced_threadpool.engine.backends.ray import Ray
from traced_threadpool.engine.backends.threads import Threads

__all__ = [
    "ClusterLost",
    "Dask",
    "NotPicklable",
    "Processes",
    "Ray",
    "RemoteError",
    "RemoteTraceback",
    "Threads",
    "WorkerCrashed",
    "WorkerSetupError",
]
