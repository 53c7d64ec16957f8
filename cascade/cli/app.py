"""The commands of `cascade`. Each parses its options, calls a library function and prints; heavy imports are inside."""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from cascade import __version__
from cascade.cli.benchmark import benchmark
from cascade.cli.build import build
from cascade.cli.console import printable, stderr, tolerate_write_errors
from cascade.cli.data import app as data
from cascade.cli.evaluate import evaluate
from cascade.cli.info import info
from cascade.cli.predict import predict
from cascade.cli.train import app as train
from cascade.errors import CascadeError

app = typer.Typer(
    name="cascade",
    help="Segment and classify brain tumors in T1-weighted contrast-enhanced MRI slices: meningioma, glioma, pituitary "
    "tumor. [bold]For research only. Not a medical device: do not use it to diagnose or treat anyone.[/]",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,  # a bug shows the traceback of Python
)
app.command("predict", no_args_is_help=True)(predict)
app.command("build")(build)
app.command("benchmark")(benchmark)
app.command("evaluate", no_args_is_help=True)(evaluate)
app.command("info")(info)
app.add_typer(data, name="data")
app.add_typer(train, name="train")


def run_app(arguments: Sequence[str] | None = None) -> None:
    """Run a command. This is the only place that prints a CascadeError, and exits with 1.

    It also exits with 1 if stdout or stderr cannot be written: the disk is full, or the reader of a pipe has ended.
    SIGTERM and SIGHUP interrupt like Ctrl-C, so that a stopped run saves its results.
    """
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores SIGHUP: leave that
            signal.signal(number, signal.default_int_handler)
    exit_code: str | int | None = 1
    with tolerate_write_errors() as problems:
        try:
            _check_current_folder()
            app(args=arguments, prog_name="cascade")
        except SystemExit as end:
            exit_code = end.code
        except CascadeError as error:
            _print_error(error)
    if problems:
        listed = "; ".join(f"{name}: cannot be written ({reason})" for name, reason in problems.items())
        _print_error(CascadeError(listed, fix="read it to its end, or free space; files of the command are complete"))
        exit_code = 1
    sys.exit(exit_code)


def _check_current_folder() -> None:
    try:
        Path.cwd()
    except OSError as error:
        raise CascadeError(
            f"the current folder cannot be opened ({error.strerror})", fix="change to another folder with cd"
        ) from error


def _print_error(error: CascadeError) -> None:
    stderr().print(Text(printable(f"error: {error}"), style="red"), soft_wrap=True)


def _print_version(requested: bool) -> None:
    if requested:
        print(f"cascade {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None: ...
