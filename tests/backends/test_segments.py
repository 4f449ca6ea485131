"""Shared memory without names: freed with its last user, never changed once sent, sent on without a copy."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from traced_threadpool.engine.backends import segments
from traced_threadpool.engine.backends.channel import Channel, Closed
from traced_threadpool.engine.backends.pickling import Pickled
from traced_threadpool.engine.backends.segments import SHARED_BYTES, Segments

pytestmark = pytest.mark.skipif(not segments.SUPPORTED, reason="this platform has no anonymous shared memory")

Pair = tuple[Channel, Channel, Segments, Segments]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two connected channels, each with segments of its own, as in two processes."""
    near, far = socket.socketpair()
    near_segments, far_segments = Segments(), Segments()
    channels = Channel(near, shared=near_segments), Channel(far, shared=far_segments)
    yield *channels, near_segments, far_segments
    for channel in channels:
        channel.close()


def block(size: int = SHARED_BYTES, fill: int = 7) -> memoryview:
    return memoryview(bytearray([fill]) * size)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def received(channel: Channel) -> Pickled:
    pickled = channel.receive()[2]
    assert pickled is not None
    return pickled


def test_a_large_block_arrives_writable(pair: Pair) -> None:
    """As a private copy: the sender's block and the segment stay as they are."""
    near, far, _, _ = pair
    sent = block()
    near.send(1, "head", Pickled(memoryview(b"stream"), [sent]))
    kind, head, pickled, passed, size = far.receive()
    assert pickled is not None
    arrived = pickled.blocks[0]
    arrived[0] = 1
    assert (kind, head, bytes(pickled.stream), passed) == (1, "head", b"stream", [])
    assert size > SHARED_BYTES
    assert (sent[0], bytes(arrived[:3]), arrived.nbytes) == (7, b"\x01\x07\x07", SHARED_BYTES)


def test_nothing_is_left_once_the_last_view_has_gone(pair: Pair) -> None:
    """No descriptor, no memory: of the sender's none stays open, of the receiver's as long as a view lives."""
    near, far, near_segments, far_segments = pair
    gc.collect()  # what earlier tests have left
    before = descriptors()
    near.send(1, None, Pickled(memoryview(b""), [block()]))
    view = received(far).blocks[0][5:10]
    assert (near_segments.live, far_segments.live) == (0, 1)
    assert bytes(view) == b"\x07" * 5
    del view
    gc.collect()
    assert (far_segments.live, descriptors()) == (0, before)


def test_what_came_is_sent_on_without_a_copy(pair: Pair) -> None:
    """The very same segment, part of it too: a chain of nodes copies each value once."""
    near, far, near_segments, _ = pair
    near.send(1, None, Pickled(memoryview(b""), [block()]))
    first = received(far).blocks[0]
    inode = os.fstat(pair[3].find(first)[0]).st_ino  # type: ignore[index]  # it is there
    far.send(2, None, Pickled(memoryview(b""), [first]))
    second = received(near).blocks[0]
    found = near_segments.find(second)
    assert found is not None
    assert os.fstat(found[0]).st_ino == inode
    assert second == first


def test_what_was_written_to_is_copied(pair: Pair) -> None:
    """The segment has the old bytes, so it cannot stand for the new ones."""
    near, far, near_segments, _ = pair
    near.send(1, None, Pickled(memoryview(b""), [block()]))
    first = received(far).blocks[0]
    first[SHARED_BYTES // 2] = 9
    far.send(2, None, Pickled(memoryview(b""), [first]))
    second = received(near).blocks[0]
    assert second == first
    first[0] = 8
    assert second[0] == 7
    assert near_segments.find(second) is not None


def test_beyond_the_limit_blocks_hold_no_descriptor() -> None:
    """They are copied on receipt, so that thousands of live values do not use up the process's descriptors."""
    near, far = socket.socketpair()
    few = Segments(max_live=1)
    sender, receiver = Channel(near), Channel(far, shared=few)
    try:
        kept = []
        before = descriptors()
        for number in range(3):
            sender.send(1, None, Pickled(memoryview(b""), [block(fill=number)]))
            kept.append(received(receiver).blocks[0])
        assert few.live == 1
        assert descriptors() <= before + 2
        assert [each[0] for each in kept] == [0, 1, 2]
        kept[2][0] = 5
    finally:
        sender.close()
        receiver.close()


def test_without_shared_memory_blocks_go_through_the_socket(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """No memory, or no descriptor left, costs time and no value."""
    near, far, _, far_segments = pair

    def refuse(parts: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(segments, "create", refuse)
    sent = block(100_000)
    monkeypatch.setattr(segments, "SHARED_BYTES", 100_000)
    near.send(1, None, Pickled(memoryview(b"odd"), [sent, block(3)]))
    arrived = received(far)
    assert (bytes(arrived.stream), arrived.blocks[0], bytes(arrived.blocks[1])) == (b"odd", sent, b"\x07" * 3)
    assert far_segments.live == 0


def test_a_segment_that_cannot_be_written_leaves_nothing() -> None:
    """A limit of file sizes stands for full memory here: the descriptor is closed again."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = descriptors()
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            segments.create([block()])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert descriptors() == before


def test_the_other_end_has_gone(pair: Pair) -> None:
    """Told as such, when sending and when receiving."""
    near, far, _, _ = pair
    far.close()
    with pytest.raises(Closed):
        near.receive()
    with pytest.raises(Closed):
        near.send(1, None)
