"""A real OpenTelemetry collector (rotel) as a process, which hands on to a receiver in the test's process.

with GrpcReceiver() as receiver, RotelProcess(tmp_path, receiver.endpoint) as rotel:
    ...  # something exports to rotel.grpc or rotel.http
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sysconfig
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from typing_extensions import Self

_found = importlib.util.find_spec("rotel")
_AGENT = Path(_found.origin).with_name("rotel-agent") if _found is not None and _found.origin is not None else None
# It is linked against the shared library of its Python, of which an interpreter of one's own may have a copy.
_ENVIRONMENT = {
    **os.environ,
    "LD_LIBRARY_PATH": f"{sysconfig.get_config_var('LIBDIR')}:{os.environ.get('LD_LIBRARY_PATH', '')}",
}


def _runs() -> bool:
    if _AGENT is None:
        return False
    tried = subprocess.run([_AGENT, "--version"], env=_ENVIRONMENT, capture_output=True, check=False)
    return tried.returncode == 0


needs_rotel = pytest.mark.skipif(not _runs(), reason="needs rotel, which is in the dev group for Linux")


class RotelProcess:
    """`grpc` and `http` are its addresses, the same when it is started again."""

    def __init__(self, folder: Path, forward_to: str) -> None:
        self._folder = folder
        self._forward_to = forward_to
        self._ports = _free_port(), _free_port()
        self.grpc, self.http = (f"http://127.0.0.1:{port}" for port in self._ports)

    def __enter__(self) -> Self:
        assert _AGENT is not None
        grpc, http = (f"127.0.0.1:{port}" for port in self._ports)
        command = [
            _AGENT, "start", "--exporter", "otlp", "--otlp-exporter-endpoint", self._forward_to,
            "--otlp-exporter-compression", "none", "--batch-timeout", "20ms",
            "--otlp-grpc-endpoint", grpc, "--otlp-http-endpoint", http,
            "--pid-file", self._folder / "rotel.pid", "--log-file", self._folder / "rotel.log",
        ]  # fmt: skip
        with (self._folder / "rotel.out").open("ab") as output:
            self._process = subprocess.Popen(command, env=_ENVIRONMENT, stdout=output, stderr=output)
        try:
            for port in self._ports:
                self._wait_until_it_listens(port)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _wait_until_it_listens(self, port: int) -> None:
        deadline = time.monotonic() + 20
        while True:
            assert self._process.poll() is None, (self._folder / "rotel.out").read_text()
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                assert time.monotonic() < deadline, "rotel does not listen"
                time.sleep(0.01)
            else:
                return

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
