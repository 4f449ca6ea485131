"""Messages over a socket between two processes of one machine: a small head, and bytes, which may be in segments.

A message is a kind, a head (any object that the standard library's pickle takes) and at most one `Pickled`. Blocks of
a megabyte and more go as segments of shared memory, whose descriptors travel beside the message; where there is no
shared memory, or no more of it, they go through the socket like the rest.
"""

from __future__ import annotations

import array
import contextlib
import os
import pickle
import socket
import struct
import threading
from collections.abc import Sequence
from typing import Any, Final

from traced_threadpool.engine.backends import segments
from traced_threadpool.engine.backends.pickling import Pickled
from traced_threadpool.engine.backends.segments import SEGMENTS, Segments

_HEADER: Final = struct.Struct("<IIQ")  # kind and number of descriptors, length of the head, length of the body

MAX_DESCRIPTORS: Final = 64
"""A kernel takes 253 with one message."""

_RECEIVE_FLAGS: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_NO_SIGNAL: Final = getattr(socket, "MSG_NOSIGNAL", 0)
_PASSES_DESCRIPTORS: Final = hasattr(socket.socket, "sendmsg") and hasattr(socket, "SCM_RIGHTS")
_DESCRIPTOR_SPACE: Final = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize) if _PASSES_DESCRIPTORS else 0
_MAX_PARTS: Final = 512  # of one call: a kernel takes 1,024

_INLINE: Final = -1
_ALIGNMENT: Final = 64
_PADDING: Final = memoryview(bytes(_ALIGNMENT))  # an array over a block wants its numbers aligned


class Closed(ConnectionError):
    """The other side has gone. Nothing more will come, and nothing more will arrive.

    `unread`: it had not read all that was sent to it, as a reset connection tells (Linux).
    """

    def __init__(self, *, unread: bool = False) -> None:
        super().__init__("the other side has gone")
        self.unread = unread


class Channel:
    """One end of a socket. Many threads may send; one receives at a time.

    Args:
        sock: Connected; the channel closes it.
        shared: Where segments that come are kept.
    """

    def __init__(self, sock: socket.socket, *, shared: Segments = SEGMENTS) -> None:
        self._socket = sock
        self._shared = shared
        self._sending = threading.Lock()

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, kind: int, head: object, pickled: Pickled | None = None, *, descriptors: Sequence[int] = ()) -> int:
        """Sends one message; returns its size in bytes, shared memory included.

        Raises Closed.
        """
        blocks = [] if pickled is None else [pickled.stream, *pickled.blocks]
        passed = list(descriptors)
        made: list[int] = []
        layout: list[tuple[int, int, int]] = []  # for each block: which descriptor or the body, size, offset
        inline: list[memoryview] = []
        inline_size = 0
        try:
            for block in blocks:
                place = self._share(block, passed, made) if block.nbytes >= segments.SHARED_BYTES else None
                if place is None:
                    padding = -inline_size % _ALIGNMENT
                    inline += [_PADDING[:padding], block]
                    layout.append((_INLINE, block.nbytes, inline_size + padding))
                    inline_size += padding + block.nbytes
                else:
                    layout.append(place)
            sizes = {index: os.fstat(passed[index]).st_size for index, _, _ in layout if index != _INLINE}
            head_bytes = pickle.dumps((head, layout, sizes), 5)
            header = _HEADER.pack(kind << 16 | len(passed), len(head_bytes), inline_size)
            with self._sending:
                self._send([memoryview(header), memoryview(head_bytes), *inline], passed)
        finally:
            for descriptor in made:
                os.close(descriptor)
        return len(head_bytes) + sum(block.nbytes for block in blocks)

    def _share(self, block: memoryview, passed: list[int], made: list[int]) -> tuple[int, int, int] | None:
        """Puts a block into shared memory, unless it is there. None where that cannot be done."""
        if not segments.SUPPORTED or not _PASSES_DESCRIPTORS or len(passed) >= MAX_DESCRIPTORS:
            return None
        known = self._shared.find(block)
        if known is not None:
            descriptor, _, offset = known
            if descriptor in passed:
                return passed.index(descriptor), block.nbytes, offset
        else:
            try:
                descriptor, offset = segments.create([block]), 0
            except OSError:  # no memory, no descriptor: through the socket, which needs neither
                return None
            made.append(descriptor)
        passed.append(descriptor)
        return len(passed) - 1, block.nbytes, offset

    def _send(self, parts: list[memoryview], passed: list[int]) -> None:
        try:
            if not hasattr(self._socket, "sendmsg"):
                for part in parts:
                    self._socket.sendall(part)
                return
            beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", passed))] if passed else []
            parts = [part for part in parts if part.nbytes]
            while parts:
                sent = self._socket.sendmsg(parts[:_MAX_PARTS], beside, _NO_SIGNAL)
                beside = []
                while parts and sent >= parts[0].nbytes:
                    sent -= parts.pop(0).nbytes
                if sent:
                    parts[0] = parts[0][sent:]
        except (BrokenPipeError, ConnectionResetError, ConnectionAbortedError) as error:
            raise Closed(unread=True) from error

    def receive(self) -> tuple[int, Any, Pickled | None, list[int], int]:
        """Waits for a message: its kind, head and pickled object, descriptors that are the caller's, and its size.

        Raises Closed.
        """
        header, passed = self._receive_header()
        try:
            kind, head_size, body_size = _HEADER.unpack(header)
            kind >>= 16
            head, layout, sizes = pickle.loads(self._receive(head_size))
            body = self._receive(body_size)
            shared: dict[int, memoryview] = {}
            for index, size in sizes.items():
                descriptor, passed[index] = passed[index], -1
                shared[index] = self._shared.receive(descriptor, size)
        except BaseException:
            for descriptor in passed:
                if descriptor >= 0:
                    os.close(descriptor)
            raise
        shared[_INLINE] = body
        blocks = [shared[index][offset : offset + size] for index, size, offset in layout]
        pickled = Pickled(blocks[0], blocks[1:]) if blocks else None
        size = head_size + sum(block.nbytes for block in blocks)
        return kind, head, pickled, [descriptor for descriptor in passed if descriptor >= 0], size

    def _receive_header(self) -> tuple[bytes, list[int]]:
        passed = array.array("i")
        try:
            if not _PASSES_DESCRIPTORS:
                return bytes(self._receive(_HEADER.size)), []
            data, ancillary, _, _ = self._socket.recvmsg(_HEADER.size, _DESCRIPTOR_SPACE, _RECEIVE_FLAGS)
        except (ConnectionResetError, ConnectionAbortedError) as error:
            raise Closed(unread=True) from error
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                passed.frombytes(content[: len(content) - len(content) % passed.itemsize])
        if not data:
            raise Closed()
        if len(data) < _HEADER.size:
            data += bytes(self._receive(_HEADER.size - len(data)))
        return data, list(passed)

    def _receive(self, size: int) -> memoryview:
        """As many bytes, writable: arrays are made over them."""
        view = memoryview(bytearray(size))
        done = 0
        while done < size:
            try:
                got = self._socket.recv_into(view[done:])
            except (ConnectionResetError, ConnectionAbortedError) as error:
                raise Closed(unread=True) from error
            if not got:
                raise Closed()
            done += got
        return view

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def close_copy(self) -> None:
        """For a forked child: lets go of its copy, and leaves the connection alone."""
        self._socket.close()
