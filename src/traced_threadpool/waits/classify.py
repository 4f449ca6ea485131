"""One reading of `/proc/<pid>/task/<tid>/syscall` into what the thread does. Pure: tables and rules.

A reading is `running`, or a blocked system call: its number, six arguments, stack pointer and program counter.
The call decides, in some cases with its arguments:

- `futex` on a word of the GIL is `gil`; on another word, or a wait for a file lock or a semaphore, `lock`;
- `nanosleep`, and `poll` or `select` of no descriptor until a point in time, is `sleep`;
- calls for sockets, and `epoll`, are `network`; an event loop's timer counts as `network` too;
- `poll` and `select` are what the descriptors are that they name in the process's memory: `network` if one is a socket;
- calls that look up a path, change a file or force it out to the disk are `disk`;
- `read`, `write`, `ioctl`, `close` and the like are what their descriptor is: see `kind_of_link`;
- all else is `other`: a child process, a signal, a message queue, an `io_uring` (which may hold anything), memory
  (`mmap`), a page (`-1`: blocked, but in no call), a number that is in no table.

A text that is none of these, or empty because the thread has ended, says nothing: `other`, which is what stands for
"nobody knows" in the sum. Nor is a word known to be another lock's while the address of the interpreter's is unknown.

>>> links = {3: "socket:[8]", 4: "/data/x.csv"}
>>> classifier = Classifier(table_for("x86_64", 8), gil_address=0x7F00_0040, descriptor=lambda n: links.get(n, ""))
>>> def says(*texts):
...     return [KINDS[classifier.classify(text + b"\\n")] for text in texts]
>>> says(b"202 0x7f000044 0x89 0x0 0x7e10 0x0 0xffffffff 0x7e00 0x7d00")
['gil']
>>> says(b"0 0x3 0x7c00 0x1 0x0 0x0 0x0 0x7e00 0x7d00", b"0 0x4 0x7c00 0x1 0x0 0x0 0x0 0x7e00 0x7d00")
['network', 'disk']
>>> says(b"running", b"-1 0x7e00 0x7d00", b"")
['running', 'other', 'other']

The sampler's process imports this at its start: no imports but for the type checker.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in `typing`, the import of which takes longer than all of this file
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

KINDS = ("running", "gil", "network", "disk", "lock", "sleep", "other")
"""What a sample tells: that the thread runs, or one of `model.states.SAMPLED`, in their order; a test compares the two,
for nothing is imported here. `other` is the last, so that a kind is told from a rule by its number."""

RUNNING, GIL, NETWORK, DISK, LOCK, SLEEP, OTHER = range(len(KINDS))

Table = dict[bytes, int]
"""A call's number, as the kernel writes it, to its kind, or to one of the rules below."""

GIL_BEFORE, GIL_AFTER = 0x30, 0xA0
"""The bytes around the address found by calibration that hold the GIL's words: a condition variable (two
words that the C library uses in turn), a mutex, and the condition variable of the switch."""

MAX_POLLED = 128
"""How many of the descriptors of one `poll` are examined, and an eighth of those of one `select`."""

_BYTE_ORDER: Literal["little"] = "little"  # of every machine in the tables

# Rules: what to look at besides the number.
_FUTEX, _POLL, _SELECT, _FCNTL, _DESCRIPTOR, _FIRST_OR_SECOND, _FIRST_OR_THIRD = range(OTHER + 1, OTHER + 8)

# Name, number on x86-64, number in the generic table, kind or rule. None: not there.
_CALLS: tuple[tuple[str, int, int | None, int], ...] = (
    ("futex", 202, 98, _FUTEX),
    ("futex_waitv", 449, 449, LOCK),  # several words at once, which the interpreter never does
    ("semop", 65, 193, LOCK),
    ("semtimedop", 220, 192, LOCK),
    ("flock", 73, 32, LOCK),
    ("nanosleep", 35, 101, SLEEP),
    ("clock_nanosleep", 230, 115, SLEEP),
    ("poll", 7, None, _POLL),
    ("ppoll", 271, 73, _POLL),
    ("select", 23, None, _SELECT),
    ("pselect6", 270, 72, _SELECT),
    ("epoll_wait", 232, None, NETWORK),
    ("epoll_pwait", 281, 22, NETWORK),
    ("epoll_pwait2", 441, 441, NETWORK),
    ("connect", 42, 203, NETWORK),
    ("accept", 43, 202, NETWORK),
    ("accept4", 288, 242, NETWORK),
    ("sendto", 44, 206, NETWORK),
    ("sendmsg", 46, 211, NETWORK),
    ("sendmmsg", 307, 269, NETWORK),
    ("recvfrom", 45, 207, NETWORK),
    ("recvmsg", 47, 212, NETWORK),
    ("recvmmsg", 299, 243, NETWORK),
    # `dup2` and `dup3` are not here: what they wait for is the end of a file that has no number any more.
    ("fcntl", 72, 25, _FCNTL),
    ("read", 0, 63, _DESCRIPTOR),
    ("readv", 19, 65, _DESCRIPTOR),
    ("pread64", 17, 67, _DESCRIPTOR),
    ("preadv", 295, 69, _DESCRIPTOR),
    ("preadv2", 327, 286, _DESCRIPTOR),
    ("write", 1, 64, _DESCRIPTOR),
    ("writev", 20, 66, _DESCRIPTOR),
    ("pwrite64", 18, 68, _DESCRIPTOR),
    ("pwritev", 296, 70, _DESCRIPTOR),
    ("pwritev2", 328, 287, _DESCRIPTOR),
    ("ioctl", 16, 29, _DESCRIPTOR),
    ("close", 3, 57, _DESCRIPTOR),
    ("lseek", 8, 62, _DESCRIPTOR),
    ("getdents", 78, None, _DESCRIPTOR),
    ("getdents64", 217, 61, _DESCRIPTOR),
    ("sendfile", 40, 71, _FIRST_OR_SECOND),
    ("splice", 275, 76, _FIRST_OR_THIRD),
    ("copy_file_range", 326, 285, _FIRST_OR_THIRD),
    ("fsync", 74, 82, DISK),
    ("fdatasync", 75, 83, DISK),
    ("sync", 162, 81, DISK),
    ("syncfs", 306, 267, DISK),
    ("sync_file_range", 277, 84, DISK),
    ("msync", 26, 227, DISK),
    ("truncate", 76, 45, DISK),
    ("ftruncate", 77, 46, DISK),
    ("fallocate", 285, 47, DISK),
    ("fadvise64", 221, 223, DISK),
    ("readahead", 187, 213, DISK),
    ("io_submit", 209, 2, DISK),
    ("io_getevents", 208, 4, DISK),
    ("io_pgetevents", 333, 292, DISK),
    ("open", 2, None, DISK),
    ("openat", 257, 56, DISK),
    ("openat2", 437, 437, DISK),
    ("creat", 85, None, DISK),
    ("stat", 4, None, DISK),
    ("lstat", 6, None, DISK),
    ("fstat", 5, 80, DISK),
    ("newfstatat", 262, 79, DISK),
    ("statx", 332, 291, DISK),
    ("statfs", 137, 43, DISK),
    ("fstatfs", 138, 44, DISK),
    ("access", 21, None, DISK),
    ("faccessat", 269, 48, DISK),
    ("faccessat2", 439, 439, DISK),
    ("readlink", 89, None, DISK),
    ("readlinkat", 267, 78, DISK),
    ("chdir", 80, 49, DISK),
    ("fchdir", 81, 50, DISK),
    ("rename", 82, None, DISK),
    ("renameat", 264, 38, DISK),
    ("renameat2", 316, 276, DISK),
    ("unlink", 87, None, DISK),
    ("unlinkat", 263, 35, DISK),
    ("mkdir", 83, None, DISK),
    ("mkdirat", 258, 34, DISK),
    ("rmdir", 84, None, DISK),
    ("link", 86, None, DISK),
    ("linkat", 265, 37, DISK),
    ("symlink", 88, None, DISK),
    ("symlinkat", 266, 36, DISK),
    ("mknod", 133, None, DISK),
    ("mknodat", 259, 33, DISK),
    ("chmod", 90, None, DISK),
    ("fchmod", 91, 52, DISK),
    ("fchmodat", 268, 53, DISK),
    ("chown", 92, None, DISK),
    ("lchown", 94, None, DISK),
    ("fchown", 93, 55, DISK),
    ("fchownat", 260, 54, DISK),
    ("utime", 132, None, DISK),
    ("utimes", 235, None, DISK),
    ("futimesat", 261, None, DISK),
    ("utimensat", 280, 88, DISK),
    ("setxattr", 188, 5, DISK),
    ("lsetxattr", 189, 6, DISK),
    ("fsetxattr", 190, 7, DISK),
    ("getxattr", 191, 8, DISK),
    ("lgetxattr", 192, 9, DISK),
    ("fgetxattr", 193, 10, DISK),
    ("listxattr", 194, 11, DISK),
    ("llistxattr", 195, 12, DISK),
    ("flistxattr", 196, 13, DISK),
    ("removexattr", 197, 14, DISK),
    ("lremovexattr", 198, 15, DISK),
    ("fremovexattr", 199, 16, DISK),
    ("name_to_handle_at", 303, 264, DISK),
    ("open_by_handle_at", 304, 265, DISK),
    ("mount", 165, 40, DISK),
    ("umount2", 166, 39, DISK),
    ("pivot_root", 155, 41, DISK),
    ("open_tree", 428, 428, DISK),
    ("move_mount", 429, 429, DISK),
    ("fsconfig", 431, 431, DISK),
    ("fsmount", 432, 432, DISK),
)

_GENERIC_MACHINES = ("aarch64", "loongarch64", "riscv64")

_FUTEX_WAITS = frozenset((0, 6, 9, 11, 13))  # WAIT, LOCK_PI, WAIT_BITSET, WAIT_REQUEUE_PI, LOCK_PI2
_FUTEX_OPERATION = 0x7F  # without the flags PRIVATE and CLOCK_REALTIME
_FCNTL_LOCKS = (b"0x7", b"0x26")  # F_SETLKW, F_OFD_SETLKW
_NULL = b"0x0"
_NO_SETS = [_NULL, _NULL, _NULL]
_POLL_FOREVER = (b"0xffffffff", b"0xffffffffffffffff", _NULL)  # -1 of `poll`; NULL of `ppoll` (0 of `poll`: no wait)

_MEMORY = ("/memfd:", "/dmabuf:", "/SYSV", "/anon_hugepage")
_BLOCK_DEVICES = tuple(
    f"/dev/{name}"
    for name in ("sd", "nvme", "vd", "xvd", "hd", "dm-", "mapper/", "md", "mmcblk", "loop", "nbd", "rbd", "zd", "sr")
)


class UnknownArchitecture(ValueError):
    """There is no table of system call numbers for this kind of machine."""


def table_for(machine: str, pointer_bytes: int) -> Table:
    """The calls of a kind of machine.

    Args:
        machine: As `platform.machine()` says.
        pointer_bytes: Of the process that is sampled, `struct.calcsize("P")`: a 32-bit process on a 64-bit kernel has
            other numbers.

    Raises:
        UnknownArchitecture: There is no table for it.
    """
    if pointer_bytes == 8 and machine == "x86_64":
        return {b"%d" % number: kind for _, number, _, kind in _CALLS}
    if pointer_bytes == 8 and machine in _GENERIC_MACHINES:
        return {b"%d" % number: kind for _, _, number, kind in _CALLS if number is not None}
    known = ", ".join(("x86_64", *_GENERIC_MACHINES))
    raise UnknownArchitecture(
        f"there are system-call tables for {known} with 64-bit pointers, "
        f"not for {machine!r} with {8 * pointer_bytes}-bit ones"
    )


def waits_for_any_child(text: bytes, machine: str) -> bool:
    """Whether a thread that reads so waits until any of its process's children ends.

    >>> waits_for_any_child(b"61 0xffffffff 0x7ffc 0x0 0x0 0x0 0x0 0x7ffb 0x7fab", "x86_64")
    True
    >>> waits_for_any_child(b"61 0x2c2d 0x7ffc 0x0 0x0 0x0 0x0 0x7ffb 0x7fab", "x86_64")
    False
    """
    fields = text.split(b" ", 2)
    wait4, waitid = (b"61", b"247") if machine == "x86_64" else (b"260", b"95")
    if fields[0] == wait4:
        return fields[1] in (b"0xffffffff", b"0xffffffffffffffff")
    return fields[0] == waitid and fields[1] == _NULL


def kind_of_link(link: str) -> int:
    """What a thread waits for that waits in a call on this descriptor.

    A socket is `network`, a timer `sleep`, a file or a disk `disk`. `other` are pipes, terminals, events, signals,
    the kernel's own files and other devices; also memory with a file's name, and a descriptor that is gone. A named
    pipe has the link of a file, and so counts as one.

    Args:
        link: The text of `/proc/<pid>/fd/<n>`, empty where it cannot be read.

    >>> [KINDS[kind_of_link(link)] for link in ("socket:[5]", "/data/x.csv (deleted)", "/dev/pts/0", "pipe:[5]", "")]
    ['network', 'disk', 'other', 'other', 'other']
    """
    if link.startswith("/"):
        if link.startswith("/dev/"):
            return DISK if link.startswith(_BLOCK_DEVICES) else OTHER
        if link.startswith(("/proc/", "/sys/")) or link.startswith(_MEMORY):
            return OTHER
        return DISK
    if link.startswith("socket:"):
        return NETWORK
    if link == "anon_inode:[timerfd]":
        return SLEEP
    return OTHER


class Classifier:
    """Readings of one process into kinds.

    Args:
        table: The calls of its machine.
        gil_address: Of the GIL, as calibration found it. None: it is unknown, so that no wait in `futex`
            can be told from another: all are `other`. 0: there is no such lock, all are `lock`.
        descriptor: Gives the text of the link `/proc/<pid>/fd/<n>`, empty where it cannot be read.
            It is asked each time.
        memory: Gives so many bytes from an address of the process, empty where they cannot be read; then `poll` and
            `select` of any descriptor are `network`.
    """

    __slots__ = (
        "_descriptor",
        "_first_gil_word",
        "_gil_is_known",
        "_last_gil_word",
        "_memory",
        "_table",
        "asked_descriptor",
        "plain",
    )

    def __init__(
        self,
        table: Table,
        *,
        gil_address: int | None,
        descriptor: Callable[[int], str],
        memory: Callable[[int, int], bytes] = lambda address, length: b"",
    ) -> None:
        self._table = table
        self._descriptor = descriptor
        self._memory = memory
        self._gil_is_known = gil_address is not None
        self._first_gil_word = (gil_address or 0) - GIL_BEFORE
        self._last_gil_word = (gil_address or 0) + GIL_AFTER
        self.plain = {b"running\n": RUNNING, **{number: rule for number, rule in table.items() if rule <= OTHER}}
        """What a reading says that begins so, up to its first space, where that is all that matters."""
        self.asked_descriptor = False
        """Whether the last answer rests on what a descriptor was, which may be another one at the next sample."""

    def classify(self, text: bytes) -> int:
        """What a thread does, by one reading of its file. Never raises, unless `descriptor` does."""
        self.asked_descriptor = False
        fields = text.split(b" ")
        if len(fields) != 9:
            return RUNNING if text == b"running\n" else OTHER
        rule = self._table.get(fields[0], OTHER)
        if rule <= OTHER:
            return rule
        if rule == _FUTEX:
            return self._of_futex(fields[1], fields[2])
        if rule == _POLL:
            if fields[2] != _NULL:
                return self._of_polled(fields[1], fields[2])
            return OTHER if fields[3] in _POLL_FOREVER else SLEEP
        if rule == _SELECT:
            if fields[1] != _NULL and fields[2:5] != _NO_SETS:
                return self._of_selected(fields[1], fields[2:5])
            return OTHER if fields[5] == _NULL else SLEEP
        if rule == _FCNTL and fields[2] in _FCNTL_LOCKS:
            return LOCK
        kind = self._of_descriptor(fields[1])
        if rule == _FIRST_OR_SECOND:
            return _of_two(kind, self._of_descriptor(fields[2]))
        if rule == _FIRST_OR_THIRD:
            return _of_two(kind, self._of_descriptor(fields[3]))
        return kind

    def _of_futex(self, address: bytes, operation: bytes) -> int:
        try:
            word, number = int(address, 16), int(operation, 16)
        except ValueError:
            return OTHER
        if not self._gil_is_known or number & _FUTEX_OPERATION not in _FUTEX_WAITS:
            return OTHER  # waking somebody does not wait, but for a page
        return GIL if self._first_gil_word <= word <= self._last_gil_word else LOCK

    def _of_polled(self, address: bytes, count: bytes) -> int:
        """`struct pollfd` has the descriptor in the first four of its eight bytes; a negative one is ignored."""
        try:
            polled = self._memory(int(address, 16), 8 * min(int(count, 16), MAX_POLLED))
        except ValueError:
            return OTHER
        numbers = [int.from_bytes(polled[at : at + 4], _BYTE_ORDER) for at in range(0, len(polled), 8)]
        return self._of_several([number for number in numbers if number < 1 << 31])

    def _of_selected(self, count: bytes, sets: list[bytes]) -> int:
        """Bits, of which the first `count` say which descriptors are meant."""
        try:
            length = min(int(count, 16), MAX_POLLED * 8)
            bits = 0
            for address in sets:
                if address != _NULL:
                    bits |= int.from_bytes(self._memory(int(address, 16), (length + 7) // 8), "little")
        except ValueError:
            return OTHER
        return self._of_several([number for number in range(length) if bits >> number & 1])

    def _of_several(self, numbers: list[int]) -> int:
        if not numbers:
            return NETWORK
        self.asked_descriptor = True
        kinds = {kind_of_link(self._descriptor(number)) for number in numbers}
        return next(kind for kind in (NETWORK, DISK, SLEEP, OTHER) if kind in kinds)

    def _of_descriptor(self, argument: bytes) -> int:
        try:
            number = int(argument, 16) & 0xFFFF_FFFF  # the kernel takes the lower half of the register
        except ValueError:
            return OTHER
        self.asked_descriptor = True
        return kind_of_link(self._descriptor(number))


def _of_two(one: int, other: int) -> int:
    """Of data moved between two descriptors: the socket is the slower side, then the file, then the rest."""
    if NETWORK in (one, other):
        return NETWORK
    return DISK if DISK in (one, other) else OTHER
