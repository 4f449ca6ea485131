"""Worker processes where memory is short, where `/dev/shm` is full, and in a notebook."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends.calls import alive_at, background, call, held, pids
from tests.dags import PATIENCE, PROCESS_PATIENCE, run_process
from traced_threadpool.backends import Processes, WorkerCrashed

Make = Callable[..., Processes]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="groups and mounts of Linux")

LIMIT_BYTES = 200_000_000


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """A group of processes that may use no more than `LIMIT_BYTES`: those whose ids are written into its file."""
    root = Path("/sys/fs/cgroup")
    first = root / "memory"
    place, limit = (first, "memory.limit_in_bytes") if first.is_dir() else (root, "memory.max")
    group = place / f"traced-threadpool-{uuid.uuid4().hex}"
    try:
        group.mkdir()
    except OSError:
        pytest.skip("no group of processes can be made here")
    try:
        try:
            (group / limit).write_text(str(LIMIT_BYTES))
        except OSError:
            pytest.skip("memory of groups is not limited here")
        for swap in ("memory.memsw.limit_in_bytes", "memory.swap.max"):
            with contextlib.suppress(OSError):
                (group / swap).write_text(str(LIMIT_BYTES if "limit" in swap else 0))
        yield group
    finally:
        deadline = time.monotonic() + PATIENCE
        while group.exists() and time.monotonic() < deadline:
            with contextlib.suppress(OSError):  # as long as a process is in it
                group.rmdir()


def test_killed_for_memory(processes: Make, memory_group: Path, tmp_path: Path) -> None:
    """The kernel kills the worker that uses too much: its node alone fails, and says that memory may be why."""
    backend = processes(2)
    limited, _ = pids(backend, 2, tmp_path)
    (memory_group / "cgroup.procs").write_text(str(limited))

    def grows(pid: int) -> int:
        import os

        return len(bytearray(b"x") * 1_000_000_000) if os.getpid() == pid else 0

    def outcome() -> Any:
        try:
            return call(backend, grows, pid=limited)
        except WorkerCrashed as error:
            return error.pid, error.signal, "memory runs out" in str(error)

    first = outcome()
    started, release = tmp_path / "started", tmp_path / "release"
    _, sibling = background(backend, held, started=started, release=release)
    other = alive_at(started)
    # If the first was not run by the worker that may not grow, this one is: the other worker is busy.
    assert sorted([first, outcome()], key=str) == [(limited, 9, True), 0]
    release.touch()
    assert sibling.result(PATIENCE) == other


FULL = [
    "unshare",
    "--mount",
    "sh",
    "-c",
    'mount -t tmpfs -o size=64k none /dev/shm && cp /dev/zero /dev/shm/full; exec "$@"',
    "-",
]


@pytest.mark.slow
def test_a_full_dev_shm(tmp_path: Path) -> None:
    """Shared memory that has no name is not on it: large values go there and back as ever."""
    if subprocess.run([*FULL[:-2], FULL[-2].replace('exec "$@"', "true")], capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    code, said, errors = run_process(
        """
import shutil
from traced_threadpool.backends import Processes

def made() -> bytes:
    return bytes(30_000_000)

def there(made: bytes) -> bytearray:
    return bytearray(made) + b"x"

def back(there: bytearray) -> int:
    return len(there)

say("free", shutil.disk_usage("/dev/shm").free)
with FutureAdapter(2, backends={"cpu": Processes(2)}, run_on="cpu") as adapter:
    say(driver_of(adapter, made, there, back).execute(["back", "made"])["back"])
""",
        within=FULL,
    )
    assert (code, said) == (0, ["free 0", "30000001"]), errors


CELL = """
import os
from dataclasses import dataclass
from hamilton import ad_hoc_utils, driver
from traced_threadpool import FutureAdapter
from traced_threadpool.backends import Processes

@dataclass
class Order:
    number: int

def helper(number):
    return Order(number * FACTOR)

FACTOR = 3

def order() -> Order:
    return helper(2)

def where(order: Order) -> tuple:
    return order.number, os.getpid(), type(order) is Order

module = ad_hoc_utils.create_temporary_module(order, where)
with FutureAdapter(2, backends={"cpu": Processes(1)}, run_on="cpu") as adapter:
    found = driver.Builder().with_modules(module).with_adapters(adapter).build().execute(["where", "order"])
print(found["where"][0], found["where"][1] != os.getpid(), found["where"][2], type(found["order"]) is Order)
"""


@pytest.mark.slow
def test_functions_of_a_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a cell, with what they use from it; also after the cell was changed and run again."""
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed (it is in the dev group)")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed (it is in the dev group)")
    import nbformat

    for variable in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    cells = [nbformat.v4.new_code_cell(each) for each in (CELL, CELL.replace("FACTOR = 3", "FACTOR = 5"))]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=PROCESS_PATIENCE, kernel_name="python3").execute()
    said = [[each.text for each in cell.outputs if each.output_type == "stream"] for cell in notebook.cells]
    assert said == [["6 True True True\n"], ["10 True True True\n"]]
