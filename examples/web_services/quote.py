"""A price in a few nodes that wait for others, as those of a service do."""

from __future__ import annotations

import time

from hamilton import ad_hoc_utils, driver

from traced_threadpool import FutureAdapter


def price(item: str) -> float:
    """Asks one service."""
    time.sleep(0.3)
    return 2.5 * len(item)


def stock(item: str) -> int:
    """Asks another."""
    time.sleep(0.4)
    return 7


def quote(price: float, stock: int) -> dict[str, float]:
    return {"price": price, "stock": stock}


adapter = FutureAdapter(8, name="shop", run_name="quote")
quotes = (
    driver.Builder()
    .with_modules(ad_hoc_utils.create_temporary_module(price, stock, quote))
    .with_adapters(adapter)
    .build()
)
"""One adapter for all requests: they share its workers, and the live view shows them together."""
