"""A stream of text into the JSON documents in it, however they are laid out.

Documents may be one a line, several on a line, over several lines each, elements of arrays, or any mixture of these;
between them may be blank lines, byte order marks and text that is no JSON. What cannot be read is counted, and reading
goes on with the next document. As many bytes are held in memory as one document has.

Whether a piece of text is the beginning of a document or is broken, the parser's error tells: no token of JSON extends
over a line break, so a document that just goes on in the next line fails at the very end of what there is so far.

>>> import io
>>> text = b'{"resourceSpans": [1]}{"resourceSpans":\\n [2]}\\n!\\n{"resou'
>>> documents = Documents(io.BufferedReader(io.BytesIO(text)), re.compile('{"'))
>>> list(documents.read(lambda value: value["resourceSpans"]))
[[1], [2]]
>>> documents.unread_lines, documents.cut_lines
(2, 1)
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Generator, Iterator
from typing import Any, Final, TypeVar

_Found = TypeVar("_Found")

SEPARATORS: Final = " \t\r\n,[]\ufeff\x1e"
"""What may stand between documents: also the brackets of arrays of them, and what RFC 7464 begins a record with."""

_AFTER_A_VALUE: Final = b" \t\r\n,]"
_BEGINNING: Final = re.compile(r'\{\s*("|$)')
_GOES_ON: Final = -2
_BROKEN: Final = -1

_INDENTATION: Final = re.compile(rb"\s*\n\s*")
_BLOCK_BYTES: Final = 2**20
_LINES_UNTIL_BLOCKS: Final = 1_000
"""A document of more lines is read in blocks."""
_SHOWN_CHARACTERS: Final = 2**16


class TooLarge(ValueError):
    """A document, or a line, of more bytes than may be held."""


class Documents:
    """The documents of a stream of UTF-8.

    Args:
        stream: What is read.
        beginning: How a document begins, for what follows broken text.
        limit: How many bytes one document may have.
        object_hook: As `json.loads` has it.
        progress: Called after each read.
    """

    def __init__(
        self,
        stream: io.BufferedReader,
        beginning: re.Pattern[str],
        *,
        limit: int = 2**29,
        object_hook: Callable[[dict[str, Any]], Any] | None = None,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        self._stream = stream
        self._beginning = beginning
        self._limit = limit
        self._decoder = json.JSONDecoder(object_hook=object_hook)
        self._progress = progress
        self.is_empty = True
        self.known = 0
        """How many documents were of a known form."""
        self.others = 0
        """How many values were well-formed and of no known form."""
        self.first_other: Any = None
        self.unread_lines = 0
        """How many lines had something that could not be read, or was of no known form."""
        self.cut_lines = 0
        """How many of these, at the end, are a document that is cut off."""
        self.first_unread = ""
        self.first_brackets = ""
        """The beginning of the first line of brackets alone."""

    def read(self, known: Callable[[Any], _Found | None]) -> Iterator[_Found]:
        """What `known` makes of each document. For a value of no known form it gives None.

        Raises:
            TooLarge: A line or a document is larger than the limit.
        """
        held, lines, depth, tried = bytearray(), 0, 0, 0
        while block := self._next(in_blocks=lines > _LINES_UNTIL_BLOCKS):
            if not held:
                text = block.decode("utf-8", "replace").strip(SEPARATORS)
                if not text:
                    self.first_brackets = self.first_brackets or _text(block[:_SHOWN_CHARACTERS])
                    continue
                if text[0] == "{" and text[-1] == "}":  # one a line, as nearly all are
                    value, end = self._value(text, 0)
                    if end == len(text):
                        yield from self._found(known, value, text, 0, end)
                        continue
            held += block
            lines += 1
            depth += block.count(b"{") - block.count(b"}")  # but for those in strings
            enough = 0 if lines == 1 else (2 if depth == 0 else 8) * tried  # so that all trying is linear
            if (len(held) >= enough and block.rstrip(_AFTER_A_VALUE).endswith(b"}")) or len(held) > self._limit:
                rest = yield from self._documents_in(_text(held), known)
                if rest and len(rest) > self._limit:
                    raise TooLarge
                held, lines = bytearray(rest), lines if rest else 0
                depth, tried = held.count(b"{") - held.count(b"}"), len(held)
        yield from self._documents_in(_text(held), known, is_last=True)

    def _next(self, *, in_blocks: bool) -> bytes:
        """The next line; of a document of many lines, many lines without their indentation."""
        block = self._stream.read(_BLOCK_BYTES) if in_blocks else b""
        block += self._stream.readline(self._limit + 1)
        if len(block) > self._limit + (_BLOCK_BYTES if in_blocks else 0):
            raise TooLarge
        self.is_empty = self.is_empty and not block
        self._progress()
        return _INDENTATION.sub(b"\n", block) if in_blocks else block

    def _documents_in(
        self, text: str, known: Callable[[Any], _Found | None], *, is_last: bool = False
    ) -> Generator[_Found, None, bytes]:
        """The documents in a text. Returns the beginning of the next one, if there is one that goes on after it."""
        at = 0
        while at < len(text):
            start = text.find("{", at)
            if start < 0:
                self._unread(text[at:])
                break
            self._unread(text[at:start])
            value, end = self._value(text, start)
            if end >= 0:
                yield from self._found(known, value, text, start, end)
                at = end
            elif end == _GOES_ON and not is_last:
                return text[start:].encode("utf-8", "replace") + b"\n"
            else:
                following = self._beginning.search(text, start + 1)
                at = len(text) if following is None else following.start()
                self._unread(text[start:at], is_cut=following is None and _BEGINNING.match(text, start) is not None)
        return b""

    def _value(self, text: str, at: int) -> tuple[Any, int]:
        """The value that begins there, and where it ends, or why there is none."""
        try:
            return self._decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            return None, _GOES_ON if error.pos >= len(text) else _BROKEN
        except (ValueError, RecursionError):  # a number of thousands of digits; nested too deeply
            return None, _BROKEN

    def _found(
        self, known: Callable[[Any], _Found | None], value: Any, text: str, start: int, end: int
    ) -> Iterator[_Found]:
        found = known(value)
        if found is not None:
            self.known += 1
            self.cut_lines = 0
            yield found
            return
        if not self.others:
            self.first_other = value
        self.others += 1
        self._unread(text[start:end])

    def _unread(self, text: str, *, is_cut: bool = False) -> None:
        lines = sum(bool(line.strip(SEPARATORS)) for line in text.split("\n"))
        if lines:
            self.first_unread = self.first_unread or text[:_SHOWN_CHARACTERS]
            self.unread_lines += lines
            self.cut_lines = lines if is_cut else 0


def _text(held: bytes | bytearray) -> str:
    return held.decode("utf-8", "replace").rstrip(" \t\r\n")
