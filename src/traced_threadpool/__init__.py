"""Run a Hamilton DAG on threads and see where its time goes.

>>> from hamilton import ad_hoc_utils, driver
>>> def price(quantity: int) -> int:
...     return 3 * quantity
>>> module = ad_hoc_utils.create_temporary_module(price, module_name="shop")
>>> with FutureAdapter(max_workers=4) as adapter:
...     dr = driver.Builder().with_modules(module).with_adapters(adapter).build()
...     dr.execute(["price"], inputs={"quantity": 2})
{'price': 6}
"""

from traced_threadpool._version import __version__
from traced_threadpool.adapter import FutureAdapter
from traced_threadpool.pool import PoolSnapshot
from traced_threadpool.telemetry.push import push_metrics
from traced_threadpool.telemetry.setup import TelemetrySetup, setup_telemetry

__all__ = ["FutureAdapter", "PoolSnapshot", "TelemetrySetup", "__version__", "push_metrics", "setup_telemetry"]
