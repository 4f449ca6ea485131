"""What the command line says of itself: `--help`, `--version`, shell completion."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("click", reason="needs the extra report")

import click  # after the check

from tests.cli.program import Command
from traced_threadpool.cli import program

COMMANDS = program.command.commands

BEGINNINGS = (
    "Add|Ask|Compare|Cover|Explain|Let|Link|List|Make|Predict|Print|Repeat|Replay|Report|Require|Reverse|Run|Show|Sort|"
    "Start|Take|Write|With --all, (take|write)"
)
"""What a sentence of the help begins with: what happens, in the imperative; or when it does."""


def test_the_overview_has_whole_sentences(command: Command) -> None:
    """Of each command one, in the order in which one needs them; none is cut short."""
    listed = command("--help").partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    assert [line.split()[0] for line in listed] == list(COMMANDS)
    assert all(line.endswith(".") and not line.endswith("...") for line in listed), listed


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained_in_whole_sentences(name: str) -> None:
    """Each begins with what it does and ends with a full stop."""
    options = [each for each in COMMANDS[name].params if isinstance(each, click.Option)]
    for text in [COMMANDS[name].help, *(option.help for option in options)]:
        assert text is not None
        assert re.fullmatch(rf"({BEGINNINGS}) .*\.\s*", text, re.DOTALL), text


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_fits_a_terminal(command: Command, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Usage, and examples at the end. Only these may be longer than 80 characters: they are copied."""
    monkeypatch.setenv("COLUMNS", "80")
    text, _, examples = command(name, "--help").partition("Examples:\n")
    assert text.startswith(f"Usage: traced-threadpool {name} ")
    assert all(line.startswith(f"    traced-threadpool {name}") for line in examples.splitlines())
    assert [line for line in text.splitlines() if len(line) > 80] == []


def test_the_examples_work(command: Command, trace: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """Each line of the examples in `--help`, as it stands there, with the files that it names."""
    monkeypatch.chdir(tmp_path)
    for name in ("yesterday.jsonl", "today.jsonl"):
        (tmp_path / name).write_bytes(trace.read_bytes())
    lines = {
        line.strip().removeprefix("traced-threadpool ")
        for words in ([], ["explain"], ["what-if"], ["report"], ["diff"], ["runs"], ["slo"])
        for line in command(*words, "--help").partition("Examples:")[2].splitlines()
        if line.strip() and "<" not in line and "parse" not in line
    }
    assert len(lines) > 15
    for line in sorted(lines - {"demo", "explain trace.jsonl --run last", "report trace.jsonl --run 3 -o run.html"}):
        if "nightly" not in line and "db=" not in line:  # names that the file's runs do not have
            command(*line.split())


def test_the_version(command: Command) -> None:
    """With the program's name."""
    assert command("--version").startswith("traced-threadpool, version ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_of_a_shell(command: Command, monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    """A script to source, as the documentation says."""
    monkeypatch.setenv("_TRACED_THREADPOOL_COMPLETE", f"{shell}_source")
    with pytest.raises(SystemExit) as ended:
        command()
    assert ended.value.code == 0


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("ex", ["plain,explain"]),
        ("what-if --pri", ["plain,--priority"]),
        ("what-if --priority ", ["plain,critical_path", "plain,fifo"]),
        ("explain tr", ["file,tr"]),
    ],
)
def test_what_is_completed(
    command: Command,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    offered: list[str],
) -> None:
    """Commands, options, what an option may be, and files."""
    for name, value in {
        "_TRACED_THREADPOOL_COMPLETE": "bash_complete",
        "COMP_WORDS": f"traced-threadpool {words}",
        "COMP_CWORD": str(len(words.split(" "))),
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        command()
    assert capsys.readouterr().out.splitlines() == offered


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["explian", "trace.jsonl"], "No such command 'explian'"),
        (["explain", "--jsn", "trace.jsonl"], "'--json'"),
        (["what-if", "--since", "yesterday", "trace.jsonl"], "'yesterday' is not a time, such as 2026-11-29 or "),
        (["what-if", "--priority", "fif", "trace.jsonl"], "'fif' is not one of 'critical_path', 'fifo'."),
    ],
)
def test_what_is_misspelled_is_told_what_there_is(command: Command, words: list[str], said: str) -> None:
    """On standard error, with the status of wrong usage."""
    assert said in command(*words, status=2)
