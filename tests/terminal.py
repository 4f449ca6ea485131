"""A real terminal, of tmux's: programs run in it, and what they leave on it is read."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.dags import eventually

TMUX = shutil.which("tmux")


class Terminal:
    """A real one, of tmux's, in which the program runs."""

    def __init__(self, tmp_path: Path, *, width: int, height: int) -> None:
        self._socket = str(tmp_path / "tmux")
        shell = "env PS1=ready: bash --norc --noprofile"
        self("-f", "/dev/null", "new-session", "-d", "-x", str(width), "-y", str(height), shell)
        assert eventually(lambda: "ready:" in self.screen())

    def __call__(self, *words: str) -> str:
        done = subprocess.run(
            [str(TMUX), "-S", self._socket, *words], capture_output=True, text=True, check=True, timeout=150
        )
        return done.stdout

    def screen(self) -> str:
        return self("capture-pane", "-p")

    def type(self, line: str) -> None:
        self("send-keys", "-l", line)
        self("send-keys", "Enter")

    def facts(self) -> str:
        """Whether the alternate screen is on, whether the cursor is shown."""
        return self("display", "-p", "#{alternate_on} #{cursor_flag}").strip()

    def end(self) -> None:
        subprocess.run([str(TMUX), "-S", self._socket, "kill-server"], capture_output=True, check=False, timeout=150)


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Terminal]]:
    if TMUX is None:
        pytest.skip("tmux is not installed (Debian: apt-get install tmux)")
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TMUX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    opened: list[Terminal] = []

    def open_one(*, width: int, height: int) -> Terminal:
        opened.append(Terminal(tmp_path, width=width, height=height))
        return opened[-1]

    yield open_one
    for each in opened:
        each.end()
