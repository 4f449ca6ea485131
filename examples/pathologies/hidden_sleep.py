"""Invoices of eight customers from a billing service that limits its callers, by a client that is patient.

What is wrong: the service answers in 5 ms, but refuses the first requests for each invoice. The client tries again
after a pause, then after a longer one: a `time.sleep` two calls below the node, which no log mentions. The nodes
take two seconds, and the network gets the blame.

The cure: ask the service what it allows (`Retry-After`), and stay below it; fetch invoices together; begin with a
shorter pause, and log each. Whatever is done, it is not a quicker network that is wanted.
"""

import random
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, contextmanager
from http import HTTPStatus
from typing import Any

from .families import each, together
from .pathology import Amount, Pathology
from .program import main
from .service import ServiceError, ask, connect, running_service

CUSTOMERS = ("acorn", "beacon", "comet", "delta", "ember", "falcon", "glacier", "heron")
SECONDS = {"invoices": 0.005}
LINES = 12
REFUSALS = 3
ATTEMPTS = 6
FIRST_PAUSE_SECONDS = 0.3


class BillingClient:
    """Invoices by customer. It tries again when it is refused."""

    def __init__(self, url: str, *, first_pause_seconds: float, seed: int) -> None:
        self._url = url
        self._first_pause_seconds = first_pause_seconds
        self._seed = seed

    def invoice(self, customer: str) -> list[float]:
        """The amounts of the customer's latest invoice."""
        path = f"/invoices/{customer}?figures={LINES}"
        document = self._patiently(lambda: self._request(path), random.Random(f"{self._seed} {customer}"))
        return [float(figure) for figure in document["figures"]]

    def _patiently(self, attempt: Callable[[], dict[str, Any] | None], jitter: random.Random) -> dict[str, Any]:
        pause = self._first_pause_seconds
        for _ in range(ATTEMPTS):
            document = attempt()
            if document is not None:
                return document
            time.sleep(pause * jitter.uniform(0.8, 1.2))
            pause *= 2
        raise ServiceError(f"{self._url} refused {ATTEMPTS} times")

    def _request(self, path: str) -> dict[str, Any] | None:
        with closing(connect(self._url)) as connection:
            status, document = ask(connection, path)
        return None if status == HTTPStatus.TOO_MANY_REQUESTS else document


@each(CUSTOMERS, "invoice_{}", customer="{}")
def invoice_of_customer(billing: BillingClient, customer: str) -> list[float]:
    return billing.invoice(customer)


@each(CUSTOMERS, "total_{}", invoice="invoice_{}")
def total_of_customer(invoice: list[float]) -> float:
    return sum(invoice)


@together(CUSTOMERS, totals="total_{}")
def reminders(totals: list[float]) -> dict[str, float]:
    """Who owes most, first."""
    return dict(sorted(zip(CUSTOMERS, totals, strict=True), key=lambda row: -row[1]))


@contextmanager
def _inputs(amount: Amount) -> Generator[Mapping[str, Any], None, None]:
    with running_service(SECONDS, seed=amount.seed, refusals=REFUSALS) as url:
        first_pause = amount.seconds(FIRST_PAUSE_SECONDS)
        yield {
            "billing": BillingClient(url, first_pause_seconds=first_pause, seed=amount.seed),
            "service_url": url,
        }


PATHOLOGY = Pathology(output="reminders", workers=8, inputs=_inputs)

if __name__ == "__main__":
    sys.exit(main("hidden_sleep"))
