"""Price lists of ten suppliers, fetched from a service that takes its time; all of them at once.

What is wrong: nothing in this program. The service answers after a second, and the order can be placed only when the
last price list is there. More workers, CPUs or a quicker Python would change nothing.

The cure: at the service, or in front of it. Fetch what does not depend on the list of suppliers earlier, ask for all
pages of a list at once, keep yesterday's prices in a cache, give up on the slowest supplier after a time.
"""

import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from .families import each, together
from .pathology import Amount, Pathology
from .program import main
from .service import fetch, running_service

SUPPLIERS = ("andersson", "bianchi", "costa", "dubois", "eriksen", "ferrari", "garcia", "hansen", "ivanov", "jansen")
ARTICLES = 40
PAGES = 2
SECONDS = {"catalogue": 0.4, "prices": 0.8, "stock": 0.5, "orders": 0.4}


def articles(service_url: str) -> list[int]:
    """The numbers of the articles that are to be bought."""
    return [round(figure) for figure in fetch(service_url, f"/catalogue?figures={ARTICLES}")["figures"]]


@each(SUPPLIERS, "prices_{}", supplier="{}")
def prices_of_supplier(service_url: str, articles: list[int], supplier: str) -> list[float]:
    """What each article costs there; a price list has pages, and the next is asked for when the last has come."""
    wanted = len(articles) // PAGES
    pages = [fetch(service_url, f"/prices/{supplier}/{page}?figures={wanted}") for page in range(PAGES)]
    return [price for page in pages for price in page["figures"]]


def stock(service_url: str, articles: list[int]) -> list[float]:
    """How many of each article are left."""
    return [float(count) for count in fetch(service_url, f"/stock?figures={len(articles)}")["figures"]]


@together(SUPPLIERS, price_lists="prices_{}")
def best_offers(price_lists: list[list[float]]) -> list[tuple[float, str]]:
    """The lowest price of each article, and whose it is."""
    return [min(zip(prices, SUPPLIERS, strict=True)) for prices in zip(*price_lists, strict=True)]


def order(service_url: str, best_offers: list[tuple[float, str]], stock: list[float]) -> str:
    """Order what is running out, and get the order's number."""
    lines = [offer for offer, left in zip(best_offers, stock, strict=True) if left < 50]
    [number] = fetch(service_url, "/orders?figures=1")["figures"]
    return f"order {number:.0f}: {len(lines)} articles for {sum(price for price, _ in lines):.2f}"


@contextmanager
def _inputs(amount: Amount) -> Generator[Mapping[str, Any], None, None]:
    seconds = {path: amount.seconds(value) for path, value in SECONDS.items()}
    with running_service(seconds, seed=amount.seed) as url:
        yield {"service_url": url}


PATHOLOGY = Pathology(output="order", workers=12, inputs=_inputs)

if __name__ == "__main__":
    sys.exit(main("slow_network"))
