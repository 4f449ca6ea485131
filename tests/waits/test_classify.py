"""What a line of the kernel says a thread does: captured lines and constructed ones."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.dags import PROCESS_PATIENCE
from tests.waits.captured_lines import GENERIC_LINES, GIL_ADDRESSES, LINES, Line
from traced_threadpool.waits import classify
from traced_threadpool.waits.classify import (
    DISK,
    GIL,
    KINDS,
    NETWORK,
    OTHER,
    RUNNING,
    SLEEP,
    Classifier,
    UnknownArchitecture,
    kind_of_link,
    table_for,
)

WAITS_IN_FUTEX = [line for line in LINES if line.text.startswith(b"202 ")]
X86_64 = table_for("x86_64", 8)


def no_descriptor(number: int) -> str:
    raise AssertionError(f"descriptor {number} was asked for")


def kind_of(text: str, *, gil_address: int | None = 0x7F0000, **links: str) -> str:
    """What a line of x86-64 is taken for; `links` by descriptor, as `fd3="pipe:[1]"`."""
    by_number = {int(name.removeprefix("fd")): link for name, link in links.items()}
    classifier = Classifier(X86_64, gil_address=gil_address, descriptor=lambda number: by_number.get(number, ""))
    return KINDS[classifier.classify(text.encode() + b"\n")]


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line.python} {line.what}")
def test_a_captured_line_is_taken_for_what_the_thread_did(line: Line) -> None:
    """Each wait has its kind, and a descriptor is asked for only where it decides."""
    descriptor = line.links.__getitem__ if line.links else no_descriptor
    classifier = Classifier(X86_64, gil_address=GIL_ADDRESSES[line.python], descriptor=descriptor)
    assert KINDS[classifier.classify(line.text)] == line.kind
    assert classifier.asked_descriptor == bool(line.links)


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
    assert {KINDS[classifier.classify(line.text)] for line in WAITS_IN_FUTEX} == {kind}


def test_the_words_around_the_address_are_the_gils() -> None:
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
        ("/memfd:frames (deleted)", OTHER),
        ("/proc/1/stat", OTHER),
        ("/sys/fs/cgroup/cpu.stat", OTHER),
        ("mnt:[4026531840]", OTHER),
        ("", OTHER),
    ],
)
def test_what_a_descriptor_is(link: str, kind: int) -> None:
    """By the text of its link, without a line at the file."""
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
        "there are system-call tables for x86_64, aarch64, loongarch64, riscv64 with 64-bit pointers, "
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


@given(st.sampled_from(LINES), st.data())
def test_half_a_line_says_nothing(line: Line, data: st.DataObject) -> None:
    """A line cut short is not taken for the shorter numbers that are left of it."""
    end = data.draw(st.integers(0, line.text.rindex(b" ")))
    classifier = Classifier(X86_64, gil_address=GIL_ADDRESSES[line.python], descriptor=no_descriptor)
    assert classifier.classify(line.text[:end]) == OTHER


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
