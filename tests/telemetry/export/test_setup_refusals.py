"""Arguments, variables and surroundings that `setup_telemetry` refuses."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace

from tests.telemetry.export.programs import file_names, free_port, needs_extra
from traced_threadpool import setup_telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., subprocess.CompletedProcess[str]]


@needs_extra
def test_a_provider_that_is_there_is_not_replaced(run: Run) -> None:
    """The error names its type and says what to do instead; nothing has been started."""
    result = run(
        """
        from opentelemetry.sdk.trace import TracerProvider
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
        try:
            setup_telemetry(file="trace.jsonl", prometheus_port=0)
        except RuntimeError as error:
            print(error)
        assert trace.get_tracer_provider() is provider
        assert not os.path.exists("trace.jsonl")
        """
    )
    for part in (
        "set already: opentelemetry.sdk.trace.TracerProvider.",
        "as it is",
        "add_span_processor",
        "tracer_provider=",
    ):
        assert part in result.stdout


@needs_extra
def test_a_second_call_is_refused(run: Run, tmp_path: Path) -> None:
    """Also after close(), because OpenTelemetry keeps the first provider; the first goes on undisturbed."""
    result = run(
        """
        first = setup_telemetry(file="first.jsonl")
        for _ in range(2):
            try:
                setup_telemetry(file="second.jsonl")
            except RuntimeError as error:
                print(error)
            spans(1)
            first.close()
        """
    )
    assert result.stdout.count("set already by an earlier setup_telemetry()") == 2
    assert file_names(tmp_path / "first.jsonl") == ["span 0"]
    assert not (tmp_path / "second.jsonl").exists()


@needs_extra
def test_somebody_quicker_is_not_replaced(run: Run) -> None:
    """A provider that another thread sets in the meantime stays, and all that was started is undone."""
    result = run(
        """
        import threading
        set_provider = trace.set_tracer_provider
        trace.set_tracer_provider = lambda provider: set_provider(trace.NoOpTracerProvider())
        try:
            setup_telemetry(file="trace.jsonl", prometheus_port=0)
        except RuntimeError as error:
            print(error)
        assert not os.path.exists("trace.jsonl")
        assert threading.enumerate() == [threading.main_thread()]
        """
    )
    assert "set already: opentelemetry.trace.NoOpTracerProvider" in result.stdout


def test_a_missing_extra_is_named(run: Run, tmp_path: Path) -> None:
    """Without the SDK, asking for spans says what to install, and has started nothing."""
    port = free_port()
    result = run(
        f"""
        import socket
        class Blocker:
            def find_spec(self, name, path=None, target=None):
                if name.startswith("opentelemetry.sdk"):
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        sys.meta_path.insert(0, Blocker())
        file_and_port = {{"file": "trace.jsonl", "prometheus_port": {port}}}
        for arguments in ({{}}, {{"endpoint": "http://localhost:4318"}}, file_and_port):
            try:
                setup_telemetry(**arguments)
            except ImportError as error:
                print(error)
        socket.create_server(("127.0.0.1", {port})).close()
        """
    )
    assert result.stdout.count('pip install "traced_threadpool[otlp]"') == 3
    assert not (tmp_path / "trace.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"endpoint": "localhost:4318"},
            ValueError,
            "'localhost:4318' has no scheme.*'http://localhost:4318'",
        ),
        ({"endpoint": ""}, ValueError, "endpoint='' has no scheme; expected a base URL"),
        ({"endpoint": "grpc://localhost:4317"}, ValueError, "not an http:// or https:// URL"),
        ({"endpoint": "http://"}, ValueError, "not an http:// or https:// URL with a host"),
        ({"endpoint": "http://local host"}, ValueError, "not an http:// or https:// URL"),
        ({"endpoint": "http://localhost:http"}, ValueError, "is not a URL"),
        ({"endpoint": "http://localhost:70000"}, ValueError, "is not a URL"),
        ({"endpoint": 4318}, TypeError, "endpoint=4318 is of type int; expected a base URL"),
        ({"endpoint": b"http://h"}, TypeError, "endpoint is of type bytes; expected a base URL"),
        ({"prometheus_port": -1}, ValueError, "prometheus_port=-1 is out of range; expected .* 0 .* 65535"),
        ({"prometheus_port": 65536}, ValueError, "out of range"),
        ({"prometheus_port": True}, TypeError, "prometheus_port=True is of type bool; expected an integer"),
        ({"prometheus_port": "9464"}, TypeError, "prometheus_port='9464' is of type str"),
        ({"service_name": ""}, ValueError, "service_name='' is empty"),
        ({"service_name": " "}, ValueError, "is empty"),
        ({"service_name": 1}, TypeError, "service_name=1 is of type int"),
    ],
)
def test_a_wrong_argument_is_an_error_at_once(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    """The message has what was found, what was expected, and where it can what to write instead."""
    before = trace.get_tracer_provider()
    with pytest.raises(error, match=message):
        setup_telemetry(**arguments)
    assert trace.get_tracer_provider() is before


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
            "OTEL_EXPORTER_OTLP_PROTOCOL='http/json' .*expected 'grpc'",
        ),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "udp"}, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL='udp'"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "localhost:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT=.* has no scheme"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER names 'zipkin'"),
    ],
)
def test_a_wrong_variable_is_an_error_at_once(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    """The message names the variable."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        setup_telemetry()


@needs_extra
def test_a_port_in_use_undoes_the_spans(run: Run, tmp_path: Path) -> None:
    """No provider, file or thread stays behind; a file that was there stays; a retry works."""
    (tmp_path / "old.jsonl").touch()
    result = run(
        """
        import socket, threading
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            for file in ("new.jsonl", "old.jsonl"):
                try:
                    setup_telemetry(file=file, prometheus_port=port)
                except OSError as error:
                    print(error.errno)
                assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
                assert threading.enumerate() == [threading.main_thread()]
                print(os.listdir())
        setup_telemetry(file="new.jsonl", prometheus_port=port)
        spans(1)
        """
    )
    assert result.stdout.splitlines() == [str(errno.EADDRINUSE), "['old.jsonl']"] * 2
    assert file_names(tmp_path / "new.jsonl") == ["span 0"]


@needs_extra
@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "-1"}, "an OTEL_BSP_* variable has a value that fails"),
        (
            {"OTEL_EXPORTER_OTLP_TIMEOUT": "soon", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "an OTEL_EXPORTER_OTLP_* variable has a value that fails",
        ),
    ],
)
def test_a_late_failure_undoes_what_was_started(
    run: Run, tmp_path: Path, variables: dict[str, str], message: str
) -> None:
    """A variable that only the SDK finds fault with leaves no provider, file, port or thread."""
    result = run(
        """
        import threading
        arguments = {"file": "trace.jsonl", "endpoint": "http://localhost:4318", "prometheus_port": 0}
        try:
            setup_telemetry(**arguments)
        except ValueError as error:
            print(error)
        assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
        assert not os.path.exists("trace.jsonl")
        assert threading.enumerate() == [threading.main_thread()]
        for descriptor in os.listdir("/proc/self/fd") if sys.platform == "linux" else ():
            path = f"/proc/self/fd/{descriptor}"
            assert not os.path.lexists(path) or "trace.jsonl" not in os.readlink(path)
        for name in ("OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_EXPORTER_OTLP_TIMEOUT"):
            os.environ.pop(name, None)
        setup_telemetry(file="trace.jsonl")
        """,
        **variables,
    )
    assert message in result.stdout


@needs_extra
@pytest.mark.skipif(sys.platform != "linux", reason="the numbers and words are Linux's")
def test_a_file_that_cannot_be_written_is_an_error_at_once(run: Run, tmp_path: Path) -> None:
    """The message says why, and what to name instead; no provider is set."""
    result = run(
        """
        os.mkdir("directory")
        os.mkfifo("pipe")
        open("plain", "w").close()
        for file in ("directory", "missing/trace.jsonl", "plain/trace.jsonl", "pipe", "a\\0b", "", 3, b"x"):
            try:
                setup_telemetry(file=file)
            except Exception as error:
                print(f"{type(error).__name__}: {error}".replace(os.getcwd(), "."))
            assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
        """
    )
    assert result.stdout.splitlines() == [
        "IsADirectoryError: [Errno 21] file='./directory' is a directory; "
        "name a file in it, such as './directory/trace.jsonl'",
        "FileNotFoundError: [Errno 2] file='./missing/trace.jsonl': there is no directory './missing'; "
        "create it, or name one that exists",
        "NotADirectoryError: [Errno 20] file='./plain/trace.jsonl' cannot be opened for writing "
        "(Not a directory); name a file that can be",
        "OSError: [Errno 6] file='./pipe' cannot be opened for writing "
        "(No such device or address); name a file that can be",
        "ValueError: file='a\\x00b' is not a path; expected a path, such as 'trace.jsonl'",
        "ValueError: file='' is empty; expected a path, such as 'trace.jsonl'",
        "TypeError: file=3 is of type int; expected a path, such as 'trace.jsonl'",
        "TypeError: file=b'x' is of type bytes; expected a path, such as 'trace.jsonl'",
    ]
