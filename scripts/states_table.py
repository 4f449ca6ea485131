"""Write the table of states in docs/waits.md from the one in the code. `make docs`."""

from __future__ import annotations

from typing import Final

from tests.house.layers import ROOT
from traced_threadpool.model.states import TABLE, Measured

DOCUMENT = ROOT / "docs/waits.md"
BEGIN, END = "<!-- states: begin (make docs) -->", "<!-- states: end -->"

KNOWN_FROM: Final[dict[Measured, str]] = {
    "cpu_clock": "the thread's CPU clock, exactly",
    "schedstat": "the kernel's run-queue delay (`schedstat`), exactly",
    "sampled": "samples",
    "backend": "the [backend](backends.md) that runs the node",
    "rest": "the rest",
}


def with_table(text: str) -> str:
    """The page with the table of now."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    rows = [f"| `{each.name}` | {each.meaning} | {KNOWN_FROM[each.measured]} |" for each in TABLE]
    table = "\n".join(("| state | the worker is | known from |", "|---|---|---|", *rows))
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


if __name__ == "__main__":
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
