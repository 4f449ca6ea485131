"""`setup_telemetry(prometheus_port=)`: metrics on loopback."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from traced_threadpool import setup_telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., subprocess.CompletedProcess[str]]


def test_metrics_are_served_with_exemplars(run: Run) -> None:
    """The default registry, on port 0's port, in OpenMetrics with exemplars for those who accept it."""
    result = run(
        """
        import urllib.request
        from prometheus_client import Histogram
        setup = setup_telemetry(prometheus_port=0)
        Histogram("job_seconds", "Jobs.").observe(0.5, exemplar={"trace_id": "ab"})
        for accept in ("application/openmetrics-text; version=1.0.0", "text/plain"):
            request = urllib.request.Request(setup.metrics_url, headers={"Accept": accept})
            with urllib.request.urlopen(request) as answer:
                body = answer.read().decode()
            print([line for line in body.splitlines() if line.startswith('job_seconds_bucket{le="0.5"}')])
        assert setup.metrics_url == f"http://127.0.0.1:{setup.metrics_port}/metrics"
        """
    )
    with_exemplar, without = result.stdout.splitlines()
    assert '# {trace_id="ab"} 0.5' in with_exemplar
    assert without == """['job_seconds_bucket{le="0.5"} 1.0']"""


def test_metrics_alone_need_no_sdk_and_leave_providers_alone(run: Run) -> None:
    """With the SDK not installed, and with a provider that is there already, whatever variables say."""
    run(
        """
        class Blocker:
            def find_spec(self, name, path=None, target=None):
                if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter", "grpc", "google")):
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        sys.meta_path.insert(0, Blocker())
        setup = setup_telemetry(prometheus_port=0)
        assert setup.tracer_provider is None
        assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
        assert setup.flush()

        provider = trace.NoOpTracerProvider()
        trace.set_tracer_provider(provider)
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://localhost:4318"
        assert setup_telemetry(prometheus_port=0).tracer_provider is None
        assert trace.get_tracer_provider() is provider
        """
    )


def test_close_ends_the_server(run: Run) -> None:
    """After the with block the thread has gone and the port is free; closing again does nothing."""
    run(
        """
        import threading
        before = threading.active_count()
        with setup_telemetry(prometheus_port=0) as setup:
            port = setup.metrics_port
            assert threading.active_count() == before + 1
        assert threading.active_count() == before
        assert (setup.metrics_port, setup.metrics_url, repr(setup)) == (None, None, "TelemetrySetup(closed)")
        setup.close()
        again = setup_telemetry(prometheus_port=port)
        assert again.metrics_port == port
        """
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform cannot fork")
def test_a_forked_child_does_not_keep_the_port(run: Run) -> None:
    """The parent can close and serve anew on its port while a child lives."""
    run(
        """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and on: fork with threads
        setup = setup_telemetry(prometheus_port=0)
        port = setup.metrics_port
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writing, b"child is there")
            import signal
            signal.pause()
        os.read(reading, 100)
        setup.close()
        setup_telemetry(prometheus_port=port).close()
        os.kill(child, 9)
        os.waitpid(child, 0)
        """
    )


def test_a_port_in_use_is_an_error() -> None:
    """The message names the port and what to do; it is the OSError that it was."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        with pytest.raises(OSError, match=rf"prometheus_port={port}: 127.0.0.1:{port} is in use") as caught:
            setup_telemetry(prometheus_port=port)
    assert caught.value.errno == errno.EADDRINUSE
