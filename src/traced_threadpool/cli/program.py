"""The program: its commands together, and what goes wrong in one of them into a sentence and an exit status.

Exit statuses, also in `docs/command-line.md`:

====  ==================================================================================
0     done
2     wrong usage
3     a file or a live view cannot be read, contains no run, or cannot be written; or standard output
4     the file has no such run
5     an extra is not installed
130   interrupted
141   the reader of the output has closed it
====  ==================================================================================
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from traced_threadpool._version import __version__
from traced_threadpool.cli.arguments import examples
from traced_threadpool.cli.demo import demo
from traced_threadpool.cli.diff import diff
from traced_threadpool.cli.errors import INTERRUPTED, PROGRAM, UNREADABLE, Failure, print_no_more, reader_gone
from traced_threadpool.cli.explain import explain
from traced_threadpool.cli.live import live
from traced_threadpool.cli.output import prepare_standard_output
from traced_threadpool.cli.report import report
from traced_threadpool.cli.runs import runs
from traced_threadpool.cli.slo import slo
from traced_threadpool.cli.what_if import what_if


class _InThisOrder(click.Group):
    """Lists the commands in the order in which one needs them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=_InThisOrder,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples("demo", "explain trace.jsonl", "what-if trace.jsonl --workers 8,16", "report trace.jsonl"),
)
@click.version_option(__version__, prog_name=PROGRAM)
def command() -> None:
    """Explain why a run was slow, predict what would help, show what runs do now, and write alert rules.

    FILE is a trace: what OtlpFileSpanExporter or setup_telemetry(file=...) writes, JSON downloaded from Jaeger, or
    OTLP JSON from Tempo or a collector; - is standard input. Of several runs in it the longest is taken; --run picks
    another, --all takes all together.

    \b
    Exit status:
      0    done
      2    wrong usage
      3    a file, the output or a live view cannot be read or written
      4    no such run
      5    an extra is not installed
      130  interrupted
      141  the reader of the output has closed it
    """


for each in (explain, what_if, report, diff, runs, live, slo, demo):
    command.add_command(each)


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit status."""
    try:
        prepare_standard_output()
        with _without_collecting():
            status = command.main(words, prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.Abort:  # what click makes of Ctrl-C; it has ended the line
        return INTERRUPTED
    except click.UsageError as error:
        error.show()
        return error.exit_code
    except Failure as error:
        click.echo(f"{PROGRAM}: {error.format_message()}", err=True)
        return error.status
    except click.ClickException as error:
        click.echo(f"{PROGRAM}: {error.format_message()}", err=True)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        reader_gone()
    except OSError as error:  # of standard output, since files have a `Failure` of their own
        click.echo(f"{PROGRAM}: standard output cannot be written: {error.strerror or error}", err=True)
        print_no_more()
        return UNREADABLE


@contextmanager
def _without_collecting() -> Iterator[None]:
    """A record is a million objects and no cycle: to look through them again and again takes a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
