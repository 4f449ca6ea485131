"""What a line of the kernel says a thread does: captured lines, constructed ones, and threads that really wait."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import re
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.dags import PATIENCE, PROCESS_PATIENCE, eventually, in_thread
from traced_threadpool.waits import classify
from traced_threadpool.waits.classify import (
    DISK,
    GIL,
    KINDS,
    LOCK,
    NETWORK,
    OTHER,
    RUNNING,
    SLEEP,
    Classifier,
    UnknownArchitecture,
    kind_of_link,
    table_for,
)

GIL_ADDRESSES = {
    "3.10": 0x7F691DDA8808,
    "3.11": 0x7FBEDC14E6F0,
    "3.12": 0x7F5BEE456200,
    "3.13": 0x7FB337140C70,
}
"""Where the interpreter lock was in the processes of `CAPTURED`."""

# Threads of CPython on Linux 6.18, x86-64, glibc. First the Python, the right kind, what the thread did, and what its
# descriptor was where that matters; then the line, as it was read.
CAPTURED = """\
3.10 sleep: time.sleep
    270 0x0 0x0 0x0 0x0 0x7f691d319510 0x0 0x7f691d319500 0x7f691d91c9ec
3.10 lock: lock.acquire
    202 0x556dd6341070 0x189 0x0 0x0 0x0 0xffffffff 0x7f691cb18430 0x7f691d8a3f16
3.10 lock: lock.acquire, timeout
    202 0x556dd6341070 0x89 0x0 0x7f6917ffe4a0 0x0 0xffffffff 0x7f6917ffe3f0 0x7f691d8a3f16
3.10 lock: SimpleQueue.get
    202 0x556dd6225cf0 0x189 0x0 0x0 0x0 0xffffffff 0x7f6915ffa5d0 0x7f691d8a3f16
3.10 gil: gil
    202 0x7f691dda8808 0x89 0x0 0x7f68cb6646b0 0x0 0xffffffff 0x7f68cb664580 0x7f691d8a3f16
3.10 gil: gil, its other word
    202 0x7f691dda880c 0x89 0x0 0x7f68cb6646b0 0x0 0xffffffff 0x7f68cb664580 0x7f691d8a3f16
3.11 sleep: time.sleep
    230 0x1 0x1 0x7fbedb327ab0 0x0 0x0 0x7fbedc14e6e8 0x7fbedb327a70 0x7fbedbaed545
3.11 lock: lock.acquire
    202 0x55a302cc9f40 0x189 0x0 0x0 0x0 0xffffffff 0x7fbedab26950 0x7fbedbaa3f16
3.11 lock: lock.acquire, timeout
    202 0x55a302cc9f40 0x89 0x0 0x7fbeda3219f0 0x0 0xffffffff 0x7fbeda321940 0x7fbedbaa3f16
3.11 gil: gil
    202 0x7fbedc14e6f4 0x89 0x0 0x7fbe89e61a40 0x0 0xffffffff 0x7fbe89e61910 0x7fbedbaa3f16
3.11 gil: gil, its other word
    202 0x7fbedc14e6f0 0x89 0x0 0x7fbe89e61a40 0x0 0xffffffff 0x7fbe89e61910 0x7fbedbaa3f16
3.12 sleep: time.sleep
    230 0x1 0x1 0x7f5bed681c00 0x0 0x0 0x7f5bee4561f8 0x7f5bed681bc0 0x7f5bedced545
3.12 lock: lock.acquire
    202 0x55a55e68dac0 0x189 0x0 0x0 0x0 0xffffffff 0x7f5bece7ca80 0x7f5bedca3f16
3.12 lock: lock.acquire, timeout
    202 0x55a55e68dac0 0x89 0x0 0x7f5be7ffeb20 0x0 0xffffffff 0x7f5be7ffea70 0x7f5bedca3f16
3.12 lock: SimpleQueue.get
    202 0x55a55e70c880 0x189 0x0 0x0 0x0 0xffffffff 0x7f5be5ffaa90 0x7f5bedca3f16
3.12 gil: gil
    202 0x7f5bee456204 0x89 0x0 0x7f5b9b664bf0 0x0 0xffffffff 0x7f5b9b664ac0 0x7f5bedca3f16
3.12 gil: gil, its other word
    202 0x7f5bee456200 0x89 0x0 0x7f5b9b664bf0 0x0 0xffffffff 0x7f5b9b664ac0 0x7f5bedca3f16
3.13 sleep: time.sleep
    230 0x1 0x1 0x7fb336495bd0 0x0 0x0 0x0 0x7fb336495b90 0x7fb336aed545
3.13 lock: lock.acquire
    202 0x55d0ac0318f0 0x189 0x0 0x0 0x0 0xffffffff 0x7fb335c90a50 0x7fb336aa3f16
3.13 lock: lock.acquire, timeout
    202 0x55d0ac0318f0 0x89 0x0 0x7fb33548bb00 0x0 0xffffffff 0x7fb33548ba40 0x7fb336aa3f16
3.13 lock: SimpleQueue.get
    202 0x7fb326ffcb00 0x189 0x0 0x0 0x0 0xffffffff 0x7fb326ffca00 0x7fb336aa3f16
3.13 gil: gil
    202 0x7fb337140c74 0x89 0x0 0x7fb2e4e5fbb0 0x0 0xffffffff 0x7fb2e4e5fa80 0x7fb336aa3f16
3.13 gil: gil, its other word
    202 0x7fb337140c70 0x89 0x0 0x7fb2e4e5fbb0 0x0 0xffffffff 0x7fb2e4e5fa80 0x7fb336aa3f16
3.11 lock: queue.get
    202 0x7fbec4000ba0 0x189 0x0 0x0 0x0 0xffffffff 0x7fbed9b1c950 0x7fbedbaa3f16
3.11 lock: queue.get, timeout
    202 0x7fbec8001450 0x89 0x0 0x7fbed93179f0 0x0 0xffffffff 0x7fbed9317940 0x7fbedbaa3f16
3.11 lock: event.wait, timeout
    202 0x7fbebc000df0 0x89 0x0 0x7fbed8b129f0 0x0 0xffffffff 0x7fbed8b12940 0x7fbedbaa3f16
3.11 lock: thread.join
    202 0x55a302ade8a0 0x189 0x0 0x0 0x0 0xffffffff 0x7fbec37fd950 0x7fbedbaa3f16
3.11 lock: SimpleQueue.get
    202 0x55a302c28340 0x189 0x0 0x0 0x0 0xffffffff 0x7fbec3ffe950 0x7fbedbaa3f16
3.11 lock: flock
    73 0x1e 0x2 0x0 0x7fbec05ad6d8 0xc7000 0x0 0x7fbe8e66aa98 0x7fbedbb16897
3.11 lock: lockf
    72 0x1f 0x7 0x7fbe8de69a80 0x7fbec05ad758 0x0 0x0 0x7fbe8de69a00 0x7fbedbb16857
3.11 lock: semop
    220 0x1 0x7fbec0566920 0x1 0x0 0x55a302d47e60 0x7fbec03ed4c0 0x7fbe89e616f8 0x7fbedbb295da
3.11 network: recv
    45 0x4 0x7fbedb5686b0 0xa 0x0 0x0 0x0 0x7fbec2ffca10 0x7fbedbb28974
3.11 network: recv, timeout
    7 0x7fbec1670a78 0x1 0x186a0 0x0 0x0 0x7fbedc14e6e8 0x7fbec1670a10 0x7fbedbb1a26f
3.11 network: sendall
    44 0x4 0x7fbec1672030 0x989680 0x0 0x0 0x0 0x7fbec27fb960 0x7fbedbb28ba4
3.11 network: accept
    288 0x8 0x7fbec0e6fa10 0x7fbec0e6fa04 0x80000 0x0 0x7fbedc14e6e8 0x7fbec0e6f9b0 0x7fbedbb28fa8
3.11 network: connect
    42 0xf 0x7fbea7ffea30 0x10 0x0 0x0 0x0 0x7fbea7ffe990 0x7fbedbb287fb
3.11 network: connect, timeout
    7 0x7fbea77fd9d8 0x1 0x186a0 0x0 0x0 0x0 0x7fbea77fd980 0x7fbedbb1a26f
3.11 network: select
    270 0x12 0x7fbea6ff08f0 0x0 0x0 0x0 0x0 0x7fbea6ff0810 0x7fbedbb1c9ec
3.11 network: select, timeout
    270 0x12 0x7fbea67ef8f0 0x0 0x0 0x7fbea67ef820 0x0 0x7fbea67ef810 0x7fbedbb1c9ec
3.11 network: poll
    7 0x7fbedb9a4ab0 0x1 0xffffffff 0x0 0x0 0x7fbedc14e6e8 0x7fbea4ff8a30 0x7fbedbb1a26f
3.11 network: epoll
    232 0x13 0x7fbea80010d0 0x3ff 0xffffffff 0x0 0x0 0x7fbe92ffca30 0x7fbedbb26f36
3.11 network: asyncio.sleep, in its epoll
    232 0x14 0x7fbedb9a4c90 0x1 0x186a0 0x0 0x0 0x7fbe927fba30 0x7fbedbb26f36
3.11 network: subprocess.communicate, in its poll
    7 0x7fbedb9a4d00 0x2 0xffffffff 0x2 0x0 0x0 0x7fbe8ee6ba30 0x7fbedbb1a26f
3.11 network: read of a socket -> socket:[13996]
    0 0x11 0x7fbec05be090 0x1 0x0 0x0 0x7fbedc14e6e8 0x7fbe9066ea30 0x7fbedbb162ec
3.11 sleep: select of nothing, timeout
    270 0x0 0x0 0x0 0x0 0x7fbea5fee820 0x0 0x7fbea5fee810 0x7fbedbb1c9ec
3.11 sleep: poll of nothing, timeout
    7 0x55a302bad040 0x0 0x186a0 0x0 0x0 0x7fbedc14e6e8 0x7fbe93ffea30 0x7fbedbb1a26f
3.11 sleep: subprocess.wait, timeout
    230 0x1 0x1 0x7fbe8f66cb00 0x0 0x0 0x0 0x7fbe8f66cac0 0x7fbedbaed545
3.11 sleep: read of a timer -> anon_inode:[timerfd]
    0 0x21 0x7fbec05bf440 0x8 0x55a302d4ce50 0x0 0x0 0x7fbe8b664a30 0x7fbedbb162ec
3.11 other: select of nothing, forever
    270 0x0 0x0 0x0 0x0 0x0 0x0 0x7fbea57ed810 0x7fbedbb1c9ec
3.11 other: poll of nothing, forever
    7 0x55a302c65c30 0x0 0xffffffff 0x0 0x0 0x0 0x7fbe937fda30 0x7fbedbb1a26f
3.11 disk: fsync
    74 0x24 0x0 0x0 0x0 0x0 0x0 0x7fbe89660a80 0x7fbedbb1cc4a
3.11 disk: fdatasync
    75 0x24 0x0 0x0 0x0 0x0 0x0 0x7fbe89660a80 0x7fbedbb1cd0a
3.11 disk: sync
    162 0x7fbedc14e6f8 0x0 0x0 0x55a302b30620 0x7fbedb9bdff0 0x0 0x7fbe89660ad8 0x7fbedbb1cca7
3.11 disk: open of a named pipe
    257 0xffffff9c 0x7fbec05bf020 0x80000 0x0 0x0 0x7fbedc14e6e8 0x7fbe8c666650 0x7fbedbb16090
3.11 disk: write, direct -> /data/x.csv
    1 0x24 0x7fbe88661000 0x800000 0x0 0x0 0x0 0x7fbe896609f0 0x7fbedbb1638f
3.11 disk: pwrite, direct -> /data/x.csv
    18 0x24 0x7fbe88661000 0x800000 0x0 0x0 0x0 0x7fbe89660a30 0x7fbedbb144c7
3.11 disk: preadv, direct -> /data/x.csv
    327 0x24 0x7fbedb9a4da0 0x1 0x0 0x0 0x0 0x7fbe89660a20 0x7fbedbb1c111
3.11 other: read of a pipe -> pipe:[12031]
    0 0x17 0x7fbec05bdca0 0x1 0x0 0x0 0x7fbedc14e6e8 0x7fbe91ffaa30 0x7fbedbb162ec
3.11 other: write to a pipe -> pipe:[12034]
    1 0x1a 0x7fbe90670030 0x989680 0x0 0x0 0x0 0x7fbe917f99f0 0x7fbedbb1638f
3.11 other: read of an eventfd -> anon_inode:[eventfd]
    0 0x20 0x7fbe8be65aa8 0x8 0x7fbedba30230 0x0 0x7fbedc14e6e8 0x7fbe8be65a50 0x7fbedbb162ec
3.11 other: read of a terminal -> /dev/pts/0
    0 0x23 0x7fbec05bf920 0x1 0x0 0x0 0x7fbedc14e6e8 0x7fbe8ae63a30 0x7fbedbb162ec
3.11 other: read of a terminal's master -> /dev/ptmx
    0 0x22 0x7fbec05bfb30 0x1 0x0 0x0 0x7fbedc14e6e8 0x7fbe8a662a30 0x7fbedbb162ec
3.11 other: subprocess.wait
    61 0x2c2d 0x7fbe8fe6daac 0x0 0x0 0x0 0x0 0x7fbe8fe6da70 0x7fbedbaf1c17
3.11 other: sigwait
    128 0x7fbe8de69a40 0x7fbe8de69900 0x0 0x8 0x0 0x0 0x7fbe8de698d0 0x7fbedba5ac82
3.11 other: sigtimedwait
    128 0x7fbe8d6689a0 0x7fbe8d668a20 0x7fbe8d668910 0x8 0x0 0x0 0x7fbe8d6688d0 0x7fbedba5ac82
3.11 other: pause
    34 0x0 0x0 0x2 0x0 0x0 0x7fbe8ce677b0 0x7fbe8ce67760 0x7fbedbaf1df2
"""

# The same waits with the numbers of the generic table: constructed from the documented format, not captured.
GENERIC_LINES = {
    "98 0xffff8c0e6f00 0x89 0x0 0xffff7fbe9a40 0x0 0xffffffff 0xffff7fbe9910 0xffff8ba83f16": GIL,
    "98 0xaaaae2cc9f40 0x189 0x0 0x0 0x0 0xffffffff 0xffff7ab26950 0xffff8ba83f16": LOCK,
    "115 0x1 0x1 0xffff7b327ab0 0x0 0x0 0x0 0xffff7b327a70 0xffff8baed545": SLEEP,
    "72 0x0 0x0 0x0 0x0 0xffff7d319510 0x0 0xffff7d319500 0xffff8b91c9ec": SLEEP,
    "73 0x0 0x0 0xffff7d319510 0x0 0x8 0x0 0xffff7d319500 0xffff8b91c9ec": SLEEP,
    "73 0x0 0x0 0x0 0x0 0x8 0x0 0xffff7d319500 0xffff8b91c9ec": OTHER,
    "73 0xffff81670a78 0x1 0x0 0x0 0x8 0x0 0xffff7d319500 0xffff8b91c9ec": NETWORK,
    "22 0x7 0xffff81670a78 0x1 0xffffffffffffffff 0x0 0x8 0xffff7d319500 0xffff8b91c9ec": NETWORK,
    "207 0x4 0xffff815686b0 0xa 0x0 0x0 0x0 0xffff72ffca10 0xffff8bb28974": NETWORK,
    "202 0x4 0xffff815686b0 0xffff81568600 0x0 0x0 0x0 0xffff72ffca10 0xffff8bb28974": NETWORK,
    "63 0x4 0xffff815686b0 0xa 0x0 0x0 0x0 0xffff72ffca10 0xffff8bb28974": NETWORK,
    "63 0x5 0xffff815686b0 0xa 0x0 0x0 0x0 0xffff72ffca10 0xffff8bb28974": DISK,
    "82 0x5 0x0 0x0 0x0 0x0 0x0 0xffff72ffca10 0xffff8bb28974": DISK,
    "56 0xffffff9c 0xffff815686b0 0x80000 0x0 0x0 0x0 0xffff72ffca10 0xffff8bb28974": DISK,
    "260 0x2c2d 0xffff815686b0 0x0 0x0 0x0 0x0 0xffff72ffca10 0xffff8bb28974": OTHER,
}


class Look(NamedTuple):
    """One captured line, and what it should be taken for."""

    python: str
    what: str
    kind: str
    links: Mapping[int, str]
    text: bytes


def _captured() -> Iterator[Look]:
    for heading, line in re.findall(r"^(\S.*)\n +(.*)$", CAPTURED, re.MULTILINE):
        python, kind, what = re.fullmatch(r"(\S+) (\S+): (.*)", heading).groups()  # type: ignore[union-attr]
        what, _, link = what.partition(" -> ")
        links = {int(line.split()[1], 16): link} if link else {}
        yield Look(python=python, what=what, kind=kind, links=links, text=line.encode() + b"\n")


LOOKS = list(_captured())
WAITS_IN_FUTEX = [look for look in LOOKS if look.text.startswith(b"202 ")]
X86_64 = table_for("x86_64", 8)


def no_descriptor(number: int) -> str:
    raise AssertionError(f"descriptor {number} was asked for")


def kind_of(text: str, *, gil_address: int | None = 0x7F0000, **links: str) -> str:
    """What a line of x86-64 is taken for; `links` by descriptor, as `fd3="pipe:[1]"`."""
    by_number = {int(name.removeprefix("fd")): link for name, link in links.items()}
    classifier = Classifier(X86_64, gil_address=gil_address, descriptor=lambda number: by_number.get(number, ""))
    return KINDS[classifier.classify(text.encode() + b"\n")]


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: f"{look.python} {look.what}")
def test_a_captured_line_is_taken_for_what_the_thread_did(look: Look) -> None:
    """Each wait has its kind, and a descriptor is asked for only where it decides."""
    descriptor = look.links.__getitem__ if look.links else no_descriptor
    classifier = Classifier(X86_64, gil_address=GIL_ADDRESSES[look.python], descriptor=descriptor)
    assert KINDS[classifier.classify(look.text)] == look.kind
    assert classifier.asked_descriptor == bool(look.links)


def test_the_flag_speaks_of_the_last_answer_alone() -> None:
    """A cache of answers may hold the one after an answer that rests on a descriptor."""
    classifier = Classifier(X86_64, gil_address=None, descriptor=lambda number: "pipe:[1]")
    asked = []
    for text in (b"0 0x3 0x1 0x1 0x0 0x0 0x0 0x1 0x1\n", b"running\n", b"0 0x3 0x1 0x1 0x0 0x0 0x0 0x1 0x1\n", b""):
        classifier.classify(text)
        asked.append(classifier.asked_descriptor)
    assert asked == [True, False, True, False]


def test_a_descriptor_is_asked_each_time() -> None:
    """The same line is something else once the number stands for another file."""
    links = iter(["socket:[1]", "/data/x.csv", ""])
    classifier = Classifier(X86_64, gil_address=None, descriptor=lambda number: next(links))
    text = b"0 0x3 0x1 0x1 0x0 0x0 0x0 0x1 0x1\n"
    assert [classifier.classify(text) for _ in range(3)] == [NETWORK, DISK, OTHER]


def test_the_descriptor_is_the_lower_half_of_the_register() -> None:
    """What the upper half holds by chance does not count, as it does not for the kernel."""
    assert kind_of("0 0xdead00000003 0x1 0x1 0x0 0x0 0x0 0x1 0x1", fd3="socket:[1]") == "network"


@pytest.mark.parametrize(("address", "kind"), [(None, "other"), (0, "lock")])
def test_without_the_locks_address_no_futex_is_called_gil(address: int | None, kind: str) -> None:
    """Where it could not be found all such waits are `other`; where there is no such lock they are locks."""
    classifier = Classifier(X86_64, gil_address=address, descriptor=no_descriptor)
    assert {KINDS[classifier.classify(look.text)] for look in WAITS_IN_FUTEX} == {kind}


def test_the_words_around_the_address_are_the_interpreter_locks() -> None:
    """From 0x30 bytes before it to 0xA0 after it, both included, and no other."""
    gil = [
        offset
        for offset in range(-0x200, 0x200)
        if kind_of(f"202 {0x7F0000 + offset:#x} 0x89 0x0 0x0 0x0 0xffffffff 0x1 0x1") == "gil"
    ]
    assert gil == list(range(-0x30, 0xA1))


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        pytest.param(0x0, "gil", id="wait"),
        pytest.param(0x80, "gil", id="wait, private"),
        pytest.param(0x189, "gil", id="wait_bitset, private, realtime"),
        pytest.param(0x6, "gil", id="lock_pi"),
        pytest.param(0x8D, "gil", id="lock_pi2, private"),
        pytest.param(0x8B, "gil", id="wait_requeue_pi, private"),
        pytest.param(0x81, "other", id="wake, private"),
        pytest.param(0x3, "other", id="requeue"),
        pytest.param(0x87, "other", id="unlock_pi, private"),
    ],
)
def test_only_a_waiting_operation_waits(operation: int, kind: str) -> None:
    """A thread that is blocked while it wakes others waits for no lock."""
    assert kind_of(f"202 0x7f0000 {operation:#x} 0x0 0x0 0x0 0x0 0x1 0x1") == kind


@pytest.mark.parametrize(
    ("line", "links", "kind"),
    [
        pytest.param("40 0x3 0x4 0x0 0x1 0x0 0x0 0x1 0x1", ("socket:[1]", "/x"), "network", id="sendfile to a socket"),
        pytest.param("40 0x3 0x4 0x0 0x1 0x0 0x0 0x1 0x1", ("pipe:[1]", "/x"), "disk", id="sendfile to a pipe"),
        pytest.param("275 0x3 0x0 0x4 0x0 0x1 0x0 0x1 0x1", ("pipe:[1]", "socket:[1]"), "network", id="splice, socket"),
        pytest.param("275 0x3 0x0 0x4 0x0 0x1 0x0 0x1 0x1", ("pipe:[1]", "pipe:[2]"), "other", id="splice of pipes"),
        pytest.param("326 0x3 0x0 0x4 0x0 0x1 0x0 0x1 0x1", ("/x", "/y"), "disk", id="copy_file_range"),
        pytest.param("72 0x3 0x26 0x1 0x0 0x0 0x0 0x1 0x1", ("/x", ""), "lock", id="fcntl, F_OFD_SETLKW"),
        pytest.param("72 0x3 0x6 0x1 0x0 0x0 0x0 0x1 0x1", ("/x", ""), "disk", id="fcntl, F_SETLK"),
        pytest.param("23 0x40 0x0 0x0 0x0 0x1 0x0 0x1 0x1", ("", ""), "sleep", id="select of three NULL sets"),
        pytest.param("23 0x40 0x0 0x1 0x0 0x1 0x0 0x1 0x1", ("", ""), "network", id="select of writers"),
        pytest.param("271 0x0 0x0 0x1 0x0 0x0 0x0 0x1 0x1", ("", ""), "sleep", id="ppoll of nothing"),
        pytest.param("271 0x0 0x0 0x0 0x0 0x0 0x0 0x1 0x1", ("", ""), "other", id="ppoll of nothing, forever"),
        pytest.param(
            "426 0x3 0x0 0x1 0x1 0x0 0x0 0x1 0x1", ("anon_inode:[io_uring]", ""), "other", id="io_uring_enter"
        ),
        pytest.param("219 0x3 0x0 0x1 0x1 0x0 0x0 0x1 0x1", ("", ""), "other", id="restart_syscall"),
        pytest.param("7 0x0 0x0 0xffffffffffffffff 0x0 0x0 0x0 0x1 0x1", ("", ""), "other", id="poll of nothing, -1"),
        pytest.param("202 0xno 0x89 0x0 0x0 0x0 0x0 0x1 0x1", ("", ""), "other", id="futex on what is no address"),
        pytest.param("0 no 0x1 0x1 0x0 0x0 0x0 0x1 0x1", ("", ""), "other", id="read of what is no descriptor"),
        pytest.param("449 0x1 0x1 0x0 0x0 0x0 0x0 0x1 0x1", ("", ""), "lock", id="futex_waitv"),
        pytest.param("9999 0x1 0x1 0x0 0x0 0x0 0x0 0x1 0x1", ("", ""), "other", id="a call that is in no table"),
        pytest.param("-1 0x7fbe89e61910 0x7fbedbaa3f16", ("", ""), "other", id="blocked in no call"),
        pytest.param("running", ("", ""), "running", id="running"),
        pytest.param("", ("", ""), "other", id="an empty line"),
    ],
)
def test_a_constructed_line(line: str, links: tuple[str, str], kind: str) -> None:
    """Arguments and descriptors decide where the call alone does not."""
    assert kind_of(line, fd3=links[0], fd4=links[1]) == kind


@pytest.mark.parametrize(
    ("link", "kind"),
    [
        ("socket:[123]", NETWORK),
        ("/data/x.csv", DISK),
        ("/tmp/tmpk3v (deleted)", DISK),
        ("/devices.csv", DISK),
        ("/dev/vda1", DISK),
        ("/dev/nvme0n1p2", DISK),
        ("/dev/mapper/data", DISK),
        ("anon_inode:[timerfd]", SLEEP),
        ("anon_inode:[eventfd]", OTHER),
        ("anon_inode:[signalfd]", OTHER),
        ("anon_inode:inotify", OTHER),
        ("anon_inode:[io_uring]", OTHER),
        ("pipe:[5]", OTHER),
        ("/dev/pts/0", OTHER),
        ("/dev/tty", OTHER),
        ("/dev/null", OTHER),
        ("/dev/nvidia0", OTHER),
        ("/dev/shm/psm_1", OTHER),
        ("/memfd:board (deleted)", OTHER),
        ("/proc/1/stat", OTHER),
        ("/sys/fs/cgroup/cpu.stat", OTHER),
        ("mnt:[4026531840]", OTHER),
        ("", OTHER),
    ],
)
def test_what_a_descriptor_is(link: str, kind: int) -> None:
    """By the text of its link, without a look at the file."""
    assert KINDS[kind_of_link(link)] == KINDS[kind]


@pytest.mark.parametrize("machine", ["aarch64", "riscv64", "loongarch64"])
def test_newer_architectures_share_the_generic_table(machine: str) -> None:
    """The same waits under other numbers; 202 is `futex` there no more, but `accept`."""
    links = {4: "socket:[1]", 5: "/data/x.csv"}
    classifier = Classifier(table_for(machine, 8), gil_address=0xFFFF8C0E6F00, descriptor=links.__getitem__)
    assert {line: classifier.classify(line.encode() + b"\n") for line in GENERIC_LINES} == GENERIC_LINES


@pytest.mark.parametrize(
    ("machine", "pointer_bytes"), [("s390x", 8), ("x86_64", 4), ("aarch64", 4), ("i686", 4), ("", 8)]
)
def test_an_unknown_architecture_is_an_error_that_names_the_known_ones(machine: str, pointer_bytes: int) -> None:
    """Numbers of another machine would make a guess of every line."""
    with pytest.raises(UnknownArchitecture) as raised:
        table_for(machine, pointer_bytes)
    assert str(raised.value) == (
        "the numbers of the system calls are known for x86_64, aarch64, loongarch64, riscv64 with 64-bit pointers, "
        f"not for {machine!r} with {8 * pointer_bytes}-bit ones"
    )


@pytest.mark.parametrize(
    ("header", "column"),
    [("x86_64-linux-gnu/asm/unistd_64.h", 1), ("asm-generic/unistd.h", 2)],
    ids=["x86-64", "generic"],
)
def test_the_numbers_are_those_of_the_kernels_headers(header: str, column: int) -> None:
    """Every call that the header has, with its number; and none is missing from a table that the header has."""
    path = Path("/usr/include") / header
    if not path.exists():
        pytest.skip(f"{path} is not installed")
    names = {"fstatat": "newfstatat", "stat": "", "lstat": ""}  # of `__NR3264_`; the last two are for 32 bits alone
    theirs = {}
    for prefix, name, number in re.findall(r"#define (__NR3264_|__NR_)(\w+)[ \t]+(\d+)", path.read_text()):
        theirs[names.get(name, name) if prefix == "__NR3264_" else name] = int(number)
    ours: dict[str, int | None] = {call[0]: call[column] for call in classify._CALLS}  # type: ignore[misc]
    assert len(ours) == len(classify._CALLS)
    assert ours == {name: theirs.get(name) for name in ours}


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_other(text: bytes) -> None:
    """What the kernel does not write says nothing, and never raises."""
    assume(text != b"running\n" and text.count(b" ") != 8)
    classifier = Classifier(X86_64, gil_address=0x7F0000, descriptor=lambda number: "socket:[1]")
    assert classifier.classify(text) == OTHER


ARGUMENT = st.one_of(st.integers(0, 2**64 - 1).map(lambda number: b"%#x" % number), st.binary(max_size=12))


@given(st.sampled_from(sorted(X86_64)), st.lists(ARGUMENT, min_size=8, max_size=8))
def test_arbitrary_arguments_never_raise(number: bytes, arguments: list[bytes]) -> None:
    """A known call with anything behind it is one of the kinds of a blocked thread, and only real numbers are asked."""
    asked: list[int] = []

    def descriptor(n: int) -> str:
        asked.append(n)
        return "pipe:[1]"

    classifier = Classifier(X86_64, gil_address=0x7F0000, descriptor=descriptor)
    assert classifier.classify(b" ".join([number, *arguments])) in range(GIL, OTHER + 1)
    assert all(0 <= n < 2**32 for n in asked)


@given(st.sampled_from(LOOKS), st.data())
def test_half_a_line_says_nothing(look: Look, data: st.DataObject) -> None:
    """A line cut short is not taken for the shorter numbers that are left of it."""
    end = data.draw(st.integers(0, look.text.rindex(b" ")))
    classifier = Classifier(X86_64, gil_address=GIL_ADDRESSES[look.python], descriptor=no_descriptor)
    assert classifier.classify(look.text[:end]) == OTHER


def test_importing_it_imports_nothing_else() -> None:
    """The sampler's process, without `site`, pays for this file alone."""
    program = (
        "import json, sys; before = set(sys.modules)\n"
        f"sys.path.insert(0, {str(Path(classify.__file__).parent)!r})\n"
        "import classify\n"
        "print(json.dumps(sorted(set(sys.modules) - before - {'json'})))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program],
        capture_output=True,
        check=True,
        text=True,
        timeout=PROCESS_PATIENCE,
    )
    assert set(json.loads(done.stdout)) <= {"__future__", "classify"}


# Real threads of this process, on the machine that the tests run on.


@pytest.fixture
def live() -> Classifier:
    """A classifier of this process that knows of no interpreter lock; skips where its threads cannot be looked at."""
    return _live_classifier(gil_address=0)


def _live_classifier(gil_address: int) -> Classifier:
    try:
        table = table_for(platform.machine(), struct.calcsize("P"))
        Path(f"/proc/self/task/{threading.get_native_id()}/syscall").read_bytes()
    except (UnknownArchitecture, OSError) as error:
        pytest.skip(f"this machine does not say what a thread does: {error}")

    def descriptor(number: int) -> str:
        try:
            return str(Path(f"/proc/self/fd/{number}").readlink())
        except OSError:
            return ""

    return Classifier(table, gil_address=gil_address, descriptor=descriptor)


@contextmanager
def looking_at(function: Callable[[], object], *, release: Callable[[], object]) -> Iterator[Path]:
    """Runs a function in a thread, which `release` must let end; gives the file with what it does."""
    identifiers: list[int] = []

    def run() -> None:
        identifiers.append(threading.get_native_id())
        function()

    future = in_thread(run)
    try:
        assert eventually(lambda: bool(identifiers))
        yield Path(f"/proc/self/task/{identifiers[0]}/syscall")
    finally:
        release()
        future.result(PATIENCE)


def settled(file: Path) -> bytes:
    """The line once it stays the same over five looks, so that the thread is where it is going to wait."""
    lines: list[bytes] = []

    def is_settled() -> bool:
        lines.append(file.read_bytes())
        return len(lines) >= 5 and len(set(lines[-5:])) == 1 and lines[-1] != b"running\n"

    assert eventually(is_settled)
    return lines[-1]


def test_a_sleeping_thread(live: Classifier) -> None:
    """`time.sleep`, by whatever call this Python makes it."""
    over = threading.Event()

    def naps() -> None:
        while not over.is_set():
            time.sleep(0.5)

    with looking_at(naps, release=over.set) as file:
        assert KINDS[live.classify(settled(file))] == "sleep"


@pytest.mark.parametrize("arguments", [(), (True, PATIENCE)], ids=["forever", "timeout"])
def test_a_thread_that_waits_for_another(live: Classifier, arguments: tuple[bool, float]) -> None:
    """A lock, with and without a time limit."""
    lock = threading.Lock()
    lock.acquire()
    with looking_at(lambda: lock.acquire(*arguments), release=lock.release) as file:
        assert KINDS[live.classify(settled(file))] == "lock"


@pytest.mark.parametrize(
    "wait",
    [
        pytest.param(lambda end: end.recv(1), id="recv"),
        pytest.param(lambda end: os.read(end.fileno(), 1), id="read"),
        pytest.param(lambda end: (end.settimeout(PATIENCE), end.recv(1)), id="recv with a timeout"),
        pytest.param(lambda end: select.select([end], [], []), id="select"),
    ],
)
def test_a_thread_that_waits_for_a_socket(live: Classifier, wait: Callable[[socket.socket], object]) -> None:
    """By a call for sockets, one for any descriptor, and one for many."""
    one, other = socket.socketpair()
    with one, other, looking_at(lambda: wait(one), release=lambda: other.send(b"x")) as file:
        assert KINDS[live.classify(settled(file))] == "network"


def test_a_thread_that_waits_for_a_pipe(live: Classifier) -> None:
    """The same call as for a socket or a file: its descriptor tells."""
    reading, writing = os.pipe()
    try:
        with looking_at(lambda: os.read(reading, 1), release=lambda: os.write(writing, b"x")) as file:
            text = settled(file)
            assert (KINDS[live.classify(text)], live.asked_descriptor) == ("other", True)
    finally:
        os.close(reading)
        os.close(writing)


def test_a_thread_that_waits_for_the_disk(live: Classifier, tmp_path: Path) -> None:
    """One that does nothing but write and force it out is in `disk` now and then, and in no wait for anything else."""
    over = threading.Event()

    def forces_out() -> None:
        block = bytes(1 << 20)
        with (tmp_path / "file").open("wb") as file:
            while not over.is_set():
                os.pwrite(file.fileno(), block, 0)
                os.fsync(file.fileno())

    seen: set[int] = set()
    with looking_at(forces_out, release=over.set) as file:
        deadline = time.monotonic() + 3.0
        while DISK not in seen and time.monotonic() < deadline:
            seen.add(live.classify(file.read_bytes()))
    if DISK not in seen:
        pytest.skip("this file system never lets a thread wait")
    assert seen.isdisjoint({NETWORK, SLEEP})


def test_a_thread_that_computes(live: Classifier) -> None:
    """It is seen running, at a look at which it is not waiting for the lock of whoever looks."""
    over = threading.Event()
    block = bytearray(1 << 24)

    def computes() -> None:
        while not over.is_set():
            block.count(b"x")

    with looking_at(computes, release=over.set) as file:
        assert eventually(lambda: live.classify(file.read_bytes()) == RUNNING)


def test_a_thread_that_waits_for_the_interpreter_lock() -> None:
    """While this thread keeps the lock in a call, another that wants to run is in `gil`; other locks are not."""
    if platform.libc_ver()[0] != "glibc" or not getattr(sys, "_is_gil_enabled", lambda: True)():
        pytest.skip("needs glibc, and an interpreter that has the lock")
    no_lock = _live_classifier(gil_address=0)
    over = threading.Event()
    lock = threading.Lock()
    lock.acquire()

    def naps() -> None:
        while not over.is_set():
            time.sleep(0.0001)

    with looking_at(naps, release=over.set) as napper, looking_at(lock.acquire, release=lock.release) as other:
        # Where processors are busy, it may be on its way to the lock yet when it is looked at.
        held = [_read_keeping_the_lock(napper) for _ in range(60)]
        waits = [text for text in held if no_lock.classify(text) == LOCK]
        assert len(waits) >= 5, f"the other thread was not seen to wait, but {held}"
        classifier = _live_classifier(gil_address=int(waits[0].split()[1], 16) & ~7)
        assert {KINDS[classifier.classify(text)] for text in waits} == {"gil"}
        assert KINDS[classifier.classify(settled(other))] == "lock"


def _read_keeping_the_lock(path: Path) -> bytes:
    """Keeps the interpreter lock for 3 ms, then reads the file without having let go of it in between."""
    keeping = ctypes.PyDLL(None)
    keeping.pread.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64]
    buffer = ctypes.create_string_buffer(256)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        time.sleep(0.002)  # lets the other thread have its nap
        keeping.usleep(3_000)
        length = keeping.pread(descriptor, buffer, 256, 0)
    finally:
        os.close(descriptor)
    return buffer.raw[:length]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_what_is_plain_by_its_number_is_what_classifying_says(machine: str) -> None:
    """The sampler looks these up first, and asks for the rest."""
    classifier = Classifier(table_for(machine, 8), gil_address=GIL, descriptor=lambda number: "")
    assert classifier.plain[b"running\n"] == classifier.classify(b"running\n") == RUNNING
    for number, kind in classifier.plain.items():
        if number != b"running\n":
            assert classifier.classify(number + b" 0x3 0x7f00 0x1 0x0 0x0 0x0 0x7ffd 0x7f01\n") == kind
    futex = {"x86_64": b"202", "aarch64": b"98"}[machine]
    assert futex not in classifier.plain
