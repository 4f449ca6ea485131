"""Progress in a notebook: in a real kernel, whose messages are read as a notebook reads them."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbclient", reason="nbclient is not installed (it is in the dev group)")
pytest.importorskip("ipykernel", reason="ipykernel is not installed (it is in the dev group)")

import nbclient
import nbformat

from tests.dags import PROCESS_PATIENCE

RUNS = """
import os, time
from hamilton import ad_hoc_utils, driver
from traced_threadpool import FutureAdapter

def first() -> int:
    return 1

def stuck(first: int) -> int:
    while not os.path.exists(GATE):
        time.sleep(0.01)
    return 1

def last(stuck: int) -> int:
    return 1

module = ad_hoc_utils.create_temporary_module(first, stuck, last)
with FutureAdapter(1, run_name="nightly <b>", progress=True) as adapter:
    print(driver.Builder().with_modules(module).with_adapters(adapter).build().execute(["last"]))
"""


class Client(nbclient.NotebookClient):  # type: ignore[misc]  # it has no annotations
    """Keeps what the bar looked like, each time once, and does something when it is there."""

    shown: list[str]
    on_bar: Any

    def process_message(self, message: Any, *others: Any) -> Any:
        found = super().process_message(message, *others)
        html = message["content"].get("data", {}).get("text/html")
        if html is not None and self.shown[-1:] != [html]:
            self.shown.append(html)
            self.on_bar(html)
        return found


def test_a_bar_while_the_run_goes_on_and_none_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_thread_left: None
) -> None:
    """In the output of the cell, without widgets; it goes with the run, and on an interrupt at once."""
    for variable in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    gates = [tmp_path / "gate 0", tmp_path / "gate 1"]
    cells = [nbformat.v4.new_code_cell(f"GATE = {str(gate)!r}\n{RUNS}") for gate in gates]
    notebook = nbformat.v4.new_notebook(cells=cells)
    client = Client(notebook, timeout=PROCESS_PATIENCE, kernel_name="python3", allow_errors=True)
    client.shown = []

    def on_bar(html: str) -> None:
        if "stuck" in html and not gates[0].exists():
            gates[0].touch()
        elif "stuck" in html:
            os.kill(client.km.provisioner.process.pid, signal.SIGINT)
        elif gates[0].exists() and html == "" and len(client.shown) > 3:
            gates[1].touch()

    client.on_bar = on_bar
    client.execute()
    bar = (
        '<div><b>nightly &lt;b&gt;</b> <progress max=3 value=1 aria-label="nightly &lt;b&gt;"></progress>'
        " 1 of 3 done, stuck</div>"
    )
    assert client.shown[0] == client.shown[-1] == ""
    assert bar in client.shown
    first, second = (cell.outputs for cell in notebook.cells)
    assert [each.data["text/html"] for each in first if each.output_type == "display_data"] == [""]
    assert [each.text for each in first if each.output_type == "stream"] == ["{'last': 1}\n"]
    assert [each.data["text/html"] for each in second if each.output_type == "display_data"] == [""]
    assert [each.ename for each in second if each.output_type == "error"] == ["KeyboardInterrupt"]
    assert gates[1].exists()  # the bar went before the node
