"""What an OTLP receiver's answer confirms: all of an export, a part of it, or nothing.

The rules (https://opentelemetry.io/docs/specs/otlp/, and where it is silent, what receivers in use do):

- The specification's success is 200. 201, 202 and 204 are what receivers in use say too (Fluent Bit, gateways).
  No other status confirms: 203 is what a proxy made of an answer, 206 is a part of one. No redirect is followed, since
  it would repeat the request elsewhere.
- An empty body is the encoding of an empty response. Prometheus answers with an untyped one.
- A body must be a response of the protocol, in protobuf or in JSON. A login page is none, nor is half a body.
- `partial_success` says how many were rejected, over HTTP and over gRPC.

>>> from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse as Response
>>> judge(200, "application/x-protobuf", b"", Response)
Answer(accepted=True, rejected=0, why='')
>>> judge(200, "application/json", b'{"partialSuccess": {"rejectedSpans": "3"}}', Response)
Answer(accepted=True, rejected=3, why='rejected by the receiver')
>>> judge(200, "text/html", b"<html>", Response)
Answer(accepted=False, rejected=0, why='HTTP 200 with text/html, which is no answer of OTLP')
"""

from __future__ import annotations

import io
import json
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from traced_threadpool.telemetry.failures import failure, status
from traced_threadpool.telemetry.urls import without_secrets

if TYPE_CHECKING:
    import requests

_MAX_BODY: Final = 1 << 20
_MAX_TOLD: Final = 200
_CONFIRMING: Final = (200, 201, 202, 204)
_MAX_NAME: Final = 20
_ENCODINGS: Final = ("identity", "", "gzip", "x-gzip")
_REJECTED: Final = ("rejected_spans", "rejected_data_points")


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether an export was accepted, and how many of its items were rejected nevertheless."""

    accepted: bool
    rejected: int = 0
    why: str = ""

    def lost(self, count: int) -> int:
        """How many of `count` items did not arrive."""
        return min(self.rejected, count) if self.accepted else count


def judge(code: int, content_type: str, body: bytes | None, response_type: type[Message]) -> Answer:
    """What an answer over HTTP confirms. `body` is None where it was not received whole."""
    if not 200 <= code < 300:
        return Answer(False, why=status(code))
    if code not in _CONFIRMING:
        return Answer(False, why=f"{status(code)}, which is no answer of OTLP")
    if body is None:
        return Answer(False, why=f"HTTP {code} with a body that is not whole")
    if not body:
        return Answer(True)
    kind = content_type.partition(";")[0].strip().lower()
    parsed = response_type()
    if kind == "text/html" or not (_from_json if "json" in kind else _from_protobuf)(body, parsed):
        return Answer(False, why=f"HTTP {code} with {kind or 'a body'}, which is no answer of OTLP")
    return of_response(parsed)


def of_response(response: Any) -> Answer:
    """What a response of the protocol confirms."""
    partial = response.partial_success
    rejected = next((getattr(partial, name) for name in _REJECTED if hasattr(partial, name)), 0)
    if rejected < 0:
        return Answer(False, why="a negative number of rejected items, which is no answer of OTLP")
    if not rejected:
        return Answer(True)
    said = f": {without_secrets(partial.error_message)[:_MAX_TOLD]!r}" if partial.error_message else ""
    return Answer(True, rejected, f"rejected by the receiver{said}")


def _from_json(body: bytes, response: Message) -> bool:
    try:
        found = json.loads(body)
        json_format.ParseDict(found, response)
    except (ValueError, TypeError, RecursionError, json_format.ParseError):
        return False
    return isinstance(found, dict)


def _from_protobuf(body: bytes, response: Message) -> bool:
    try:
        response.ParseFromString(body)
    except DecodeError:
        return False
    response.DiscardUnknownFields()  # of a text that happens to parse, all are unknown
    return bool(response.ListFields())


class Answers:
    """The last answer to an exporter: it tells nobody of what it makes of one."""

    def __init__(self, response_type: type[Message]) -> None:
        self._response_type = response_type
        self.last: Answer | None = None

    def session(self) -> requests.Session:
        """For an exporter over HTTP."""
        import requests

        answers = self

        class Session(requests.Session):
            def request(self, *args: Any, **kwargs: Any) -> requests.Response:
                kwargs["allow_redirects"], kwargs["stream"] = False, True
                try:
                    response = super().request(*args, **kwargs)
                except Exception as error:
                    answers.last = Answer(False, why=failure(error))
                    raise
                timeout = kwargs.get("timeout")
                return answers._read(response, timeout if isinstance(timeout, (int, float)) else 10.0)

        session = Session()
        session.headers["Accept-Encoding"] = "gzip"
        return session

    def _read(self, response: requests.Response, timeout: float) -> requests.Response:
        import requests

        encoding = response.headers.pop("Content-Encoding", "identity").strip().lower()
        body = _whole_body(response, encoding, time.monotonic() + timeout)
        code = response.status_code
        if encoding not in _ENCODINGS and 200 <= code < 300:
            why = f"HTTP {code} with a body compressed as {encoding[:_MAX_NAME]!r}, which is neither gzip nor asked for"
            self.last = Answer(False, why=why)
        elif 300 <= code < 400:
            self.last = Answer(False, why=status(code, response.headers.get("Location")))
        else:
            self.last = judge(code, response.headers.get("Content-Type", ""), body, self._response_type)
        read = requests.Response()  # the same with its body at hand
        read.status_code, read.reason, read.url = code, response.reason, response.url
        read.headers, read.request, read.raw = response.headers, response.request, io.BytesIO(body or b"")
        response.close()
        return read

    def over_grpc(self, exporter_class: type[Any]) -> type[Any]:
        """The exporter over gRPC, which makes its client anew at times and drops each of its responses."""
        answers = self

        class Confirmed(exporter_class):  # type: ignore[misc]  # its class is known at run time alone
            def __setattr__(self, name: str, value: Any) -> None:
                super().__setattr__(name, _Client(value, answers) if name == "_client" and value is not None else value)

        return Confirmed


class _Client:
    """A gRPC client whose answers are noted."""

    def __init__(self, client: Any, answers: Answers) -> None:
        self._client = client
        self._answers = answers

    def Export(self, *args: Any, **kwargs: Any) -> Any:
        try:
            response = self._client.Export(*args, **kwargs)
        except Exception as error:
            code = getattr(error, "code", None)
            why = f"gRPC status {code().name}" if callable(code) else failure(error)
            self._answers.last = Answer(False, why=why)
            raise
        self._answers.last = of_response(response)
        return response


def _whole_body(response: requests.Response, encoding: str, deadline: float) -> bytes | None:
    """Read in pieces and decoded here, since neither requests nor urllib3 tells a body that ends early."""
    raw = bytearray()
    try:
        for chunk in response.raw.stream(8192, decode_content=False):
            raw += chunk
            if len(raw) > _MAX_BODY or time.monotonic() > deadline:
                return None
    except Exception:  # cut off
        return None
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and len(raw) < int(length):
        return None
    if "gzip" not in encoding or not raw:
        return bytes(raw)
    try:
        decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)
        body = decoder.decompress(raw, _MAX_BODY)
    except zlib.error:
        return None
    return body if decoder.eof else None
