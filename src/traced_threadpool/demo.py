"""A small pipeline to look at: fetches, parses, hashes, stores and rates a few regions, in about a second.

Its nodes spend their time in different ways, really: on a socket, with the GIL, on a CPU without it,
on a disk, asleep. The server is a thread of this process.
"""

from __future__ import annotations

import hashlib
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from hamilton import ad_hoc_utils, driver
from hamilton.function_modifiers import group, inject, parameterize, source, value
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from prometheus_client import CollectorRegistry

from traced_threadpool.adapter import FutureAdapter
from traced_threadpool.telemetry.export.otlp_file import OtlpFileSpanExporter

REGIONS: Final = ("north", "east", "south", "west", "centre", "coast", "hills", "islands")
SLOW_REGION: Final = "islands"
RUN_NAME: Final = "demo"

_LATENCY_SECONDS: Final = 0.15
_SLOW_LATENCY_SECONDS: Final = 0.6
_PAYLOAD: Final = b"17,4,23,8,15,42,16\n" * 4_000


_Function = TypeVar("_Function", bound=Callable[..., Any])


def run_demo(trace: Path, workers: int) -> None:
    """Run the pipeline once, its spans into the file `trace`.

    Raises:
        OSError: the file cannot be written.
    """
    os.environ["HAMILTON_TELEMETRY_ENABLED"] = "false"  # older versions of Hamilton send usage statistics
    provider = TracerProvider(resource=Resource.create({"service.name": "traced-threadpool-demo"}))
    provider.add_span_processor(BatchSpanProcessor(OtlpFileSpanExporter(trace)))
    try:
        with (
            _serving() as port,
            tempfile.TemporaryDirectory(prefix="traced-threadpool-") as scratch,
            FutureAdapter(
                workers, RUN_NAME, run_name=RUN_NAME, tracer_provider=provider, registry=CollectorRegistry()
            ) as adapter,
        ):
            module = ad_hoc_utils.create_temporary_module(fetched, parsed, digest, stored, quota, ranking)
            builder = driver.Builder().with_modules(module).with_adapters(adapter)
            builder.build().execute(["ranking"], inputs={"port": port, "scratch": scratch})
    finally:
        provider.shutdown()


def _of_each_region(name: str, **inputs: str) -> Callable[[_Function], _Function]:
    """A decorator that makes a node of the function for each region; an input without a name is the region's own."""
    nodes: dict[str, Any] = {
        f"{name}_{region}": {
            parameter: source(f"{upstream}_{region}") if upstream else value(region)
            for parameter, upstream in inputs.items()
        }
        for region in REGIONS
    }
    return cast("Callable[[_Function], _Function]", parameterize(**nodes))


@_of_each_region("fetched", region="")
def fetched(region: str, port: int) -> bytes:
    """Waits for a socket."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(region.encode() + b"\n")
        return b"".join(iter(lambda: connection.recv(65_536), b""))


@_of_each_region("parsed", raw="fetched")
def parsed(raw: bytes) -> list[int]:
    """Computes with the GIL."""
    return [sum(int(word) for word in line.split(b",")) for line in raw.splitlines()]


@_of_each_region("digest", raw="fetched")
def digest(raw: bytes) -> str:
    """Computes without it."""
    return hashlib.pbkdf2_hmac("sha256", raw, b"salt", 100_000).hex()


@_of_each_region("stored", region="", numbers="parsed")
def stored(region: str, numbers: list[int], scratch: str) -> Path:
    """Waits for a disk."""
    path = Path(scratch) / f"{region}.csv"
    with path.open("w") as file:
        for number in numbers[:400]:
            file.write(f"{number}\n")
        file.flush()
        os.fsync(file.fileno())
    return path


def quota() -> int:
    """Sleeps."""
    time.sleep(0.15)
    return 3


@inject(
    paths=group(*(source(f"stored_{region}") for region in REGIONS)),
    digests=group(*(source(f"digest_{region}") for region in REGIONS)),
)
def ranking(paths: list[Path], digests: list[str], quota: int) -> list[str]:
    """Needs everything."""
    return [path.stem for path, _ in sorted(zip(paths, digests, strict=True), key=lambda pair: pair[1])][:quota]


@contextmanager
def _serving() -> Iterator[int]:
    """A server that answers a line with a table after a while; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener,), name="demo-server", daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts


def _accept(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # the demo is over
            return
        threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    with connection:
        region = connection.makefile("rb").readline().decode().strip()
        time.sleep(_SLOW_LATENCY_SECONDS if region == SLOW_REGION else _LATENCY_SECONDS)
        connection.sendall(_PAYLOAD)
