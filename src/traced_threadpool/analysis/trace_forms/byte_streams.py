"""A file's bytes into UTF-8 text: decompressed where they are gzip, recoded where they are UTF-16 or UTF-32."""

from __future__ import annotations

import codecs
import io
import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final

STEP_BYTES: Final = 8 * 2**10
"""What comes before damage in a compressed file is read but for the step that it is in."""

_GZIP: Final = b"\x1f\x8b"
_WITH_HEADER: Final = 31  # of zlib's window sizes: the largest, in gzip's own form


class GzipDamaged(ValueError):
    """Compressed bytes of which nothing can be read."""


class _Pieces(io.RawIOBase):
    """A raw stream of what an iterator gives."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = piece
        part, self._left = self._left[: len(into)], self._left[len(into) :]
        into[: len(part)] = part
        return len(part)


def utf8_stream(raw: io.BufferedReader, cut_off: Callable[[], None]) -> io.BufferedReader:
    """The text of a file. It ends where a compressed file is cut off or damaged, and `cut_off` is called."""
    stream = raw
    if raw.peek(len(_GZIP)).startswith(_GZIP):
        stream = io.BufferedReader(_Pieces(_gunzipped(raw, cut_off)), STEP_BYTES)
    encoding = json.detect_encoding(stream.peek(4)[:4])
    if encoding.startswith("utf-8"):
        return stream
    return io.BufferedReader(_Pieces(_recoded(stream, encoding)))


def _gunzipped(raw: io.BufferedReader, cut_off: Callable[[], None]) -> Iterator[bytes]:
    """All members of a gzip file, without the padding between and after them."""
    member, in_member, any_output = zlib.decompressobj(_WITH_HEADER), False, False
    data, has_more = b"", False
    while True:
        if not data and not has_more and not (data := raw.read(STEP_BYTES)):
            break
        if not in_member and any_output and not (data := data.lstrip(b"\0")):
            continue
        in_member = True
        try:
            piece = member.decompress(data, STEP_BYTES)
        except zlib.error as error:
            if not any_output:
                raise GzipDamaged(str(error)) from error
            cut_off()
            return
        if piece:
            any_output = True
            yield piece
        data, has_more = member.unconsumed_tail, len(piece) == STEP_BYTES
        if member.eof:
            data, has_more = member.unused_data, False
            member, in_member = zlib.decompressobj(_WITH_HEADER), False
    if in_member:
        cut_off()


def _recoded(stream: io.BufferedReader, encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    while data := stream.read(STEP_BYTES):
        yield decoder.decode(data).encode("utf-8", "replace")
    yield decoder.decode(b"", final=True).encode("utf-8", "replace")
