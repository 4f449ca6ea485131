"""Progress bars on a real terminal: while runs go on, beside Hamilton's own, and after Ctrl-C."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

import traced_threadpool
from tests.dags import PRELUDE, eventually
from tests.terminal import Terminal, terminal

pytest.importorskip("rich", reason="bars need rich, which is in the extra [report]")

__all__ = ["terminal"]  # a fixture


def program(path: Path, script: str) -> str:
    """The command that runs the script, with the package and the prelude of tests."""
    source = str(Path(traced_threadpool.__file__).parents[1])
    path.write_text(f"import sys; sys.path.insert(0, {source!r})\n{PRELUDE}\n{dedent(script)}", encoding="utf-8")
    return shlex.join([sys.executable, str(path)])


def test_ctrl_c_leaves_a_clean_terminal(tmp_path: Path, terminal: Callable[..., Terminal]) -> None:
    """The bar goes and the cursor is back at once, though the node that runs goes on: no thread can be ended."""
    script = """
        import time
        GATE = os.path.join(os.path.dirname(__file__), "gate")
        def first() -> int:
            return 1
        def stuck(first: int) -> int:
            while not os.path.exists(GATE):
                time.sleep(0.01)
            return 1
        def last(stuck: int) -> int:
            return 1
        try:
            with FutureAdapter(1, run_name="nightly", progress=True) as adapter:
                driver_of(adapter, first, stuck, last).execute(["last"])
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            os._exit(0)
        """
    opened = terminal(width=100, height=20)
    opened.type(f"clear; {program(tmp_path / 'run.py', script)}")
    assert eventually(lambda: "nightly" in opened.screen() and "1/3" in opened.screen())
    assert "stuck" in opened.screen()
    assert opened.facts() == "0 0"
    opened("send-keys", "C-c")
    assert eventually(lambda: opened.facts() == "0 1" and "nightly" not in opened.screen())
    (tmp_path / "gate").touch()
    assert eventually(lambda: "interrupted" in opened.screen())
    assert "Traceback" not in opened.screen()


def test_beside_hamiltons_own_progress_bar(tmp_path: Path, terminal: Callable[..., Terminal]) -> None:
    """Both at once: the run ends, its result is right, and the terminal is clean."""
    script = """
        import time
        from hamilton.plugins.h_rich import RichProgressBar
        def make(index):
            def node() -> int:
                time.sleep(0.2)
                return index
            node.__name__ = f"n{index}"
            return node
        module = ad_hoc_utils.create_temporary_module(*[make(index) for index in range(8)])
        adapter = FutureAdapter(2, run_name="nightly", progress=True)
        dr = driver.Builder().with_modules(module).with_adapters(adapter, RichProgressBar()).build()
        print("sum", sum(dr.execute([f"n{index}" for index in range(8)]).values()))
        adapter.close()
        """
    opened = terminal(width=100, height=20)
    opened.type(f"clear; {program(tmp_path / 'run.py', script)}")
    assert eventually(lambda: "sum 28" in opened.screen())
    assert eventually(lambda: opened.facts() == "0 1")
    assert "Traceback" not in opened.screen()
    assert "nightly" not in opened.screen()
