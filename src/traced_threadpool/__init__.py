"""Run a Hamilton DAG on threads and see where its time goes.

>>> from hamilton import ad_hoc_utils, driver
>>> from traced_threadpool import FutureAdapter
>>> def price(quantity: int) -> int:
...     return 3 * quantity
>>> module = ad_hoc_utils.create_temporary_module(price, module_name="shop")
>>> with FutureAdapter(max_workers=4) as adapter:
...     dr = driver.Builder().with_modules(module).with_adapters(adapter).build()
...     dr.execute(["price"], inputs={"quantity": 2})
{'price': 6}
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from traced_threadpool._version import __version__
from traced_threadpool.model.recorded_run import present_with

if TYPE_CHECKING:
    from traced_threadpool.adapter import FutureAdapter
    from traced_threadpool.engine.pool_snapshot import PoolSnapshot
    from traced_threadpool.options import Attribution, Metrics, Tracing
    from traced_threadpool.placement import run_on
    from traced_threadpool.telemetry.export.otlp_file import OtlpFileSpanExporter as OtlpFileSpanExporter
    from traced_threadpool.telemetry.export.setup import TelemetrySetup, setup_telemetry
    from traced_threadpool.telemetry.metrics.pushgateway import push_metrics

# Without OtlpFileSpanExporter, which needs an extra: `import *` works without.
__all__ = [
    "Attribution",
    "FutureAdapter",
    "Metrics",
    "PoolSnapshot",
    "TelemetrySetup",
    "Tracing",
    "__version__",
    "push_metrics",
    "run_on",
    "setup_telemetry",
]

_HOMES: Final = {
    "Attribution": "options",
    "FutureAdapter": "adapter",
    "Metrics": "options",
    "OtlpFileSpanExporter": "telemetry.export.otlp_file",
    "PoolSnapshot": "engine.pool_snapshot",
    "TelemetrySetup": "telemetry.export.setup",
    "Tracing": "options",
    "push_metrics": "telemetry.metrics.pushgateway",
    "run_on": "placement",
    "setup_telemetry": "telemetry.export.setup",
}

_PACKAGES: Final = ("analysis", "backends", "live")
"""Which can be used without an import of their own."""

present_with(lambda: import_module("traced_threadpool.report.presenter"))


def __getattr__(name: str) -> Any:
    """Each when it is asked for: the command line needs none of them, nor Hamilton, which takes a while to import."""
    if name in _PACKAGES:
        return import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_PACKAGES})
