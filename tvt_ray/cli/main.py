"""The command line: parses, executes, and turns whatever goes wrong into one line and an exit code."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

from tvt_ray import __version__
from tvt_ray.cli import (
    check_data,
    distill,
    evaluate,
    export,
    fit,
    inspect,
    predict,
    profile,
    rank,
    refine,
    report,
    score,
    search,
    teacher,
)
from tvt_ray.cli.interrupts import INTERRUPTED, Interrupts
from tvt_ray.cli.options import Parser
from tvt_ray.errors import RunError, UsageError
from tvt_ray.runs.resuming import resumed_by
from tvt_ray.storage.locations import Location, as_location, first_line, shown

Command = Callable[[argparse.Namespace], int]
MOST_OF_A_NAME = 60  # characters of one that is too long, in a message

# In the order of `tvt --help`: (name, what it does, what adds its flags)
COMMANDS: tuple[tuple[str, str, Callable[[argparse.ArgumentParser], None]], ...] = (
    ("fit", "from a folder of images to a trained student, in one", fit.add),
    ("search", "score untrained ViTs and keep the best", search.add),
    ("refine", "train a few shortly, and rank all by what they teach", refine.add),
    ("distill", "train a run's best architectures with the teacher", distill.add),
    ("teacher", "train or evaluate a teacher", teacher.add),
    ("score", "score one architecture", score.add),
    ("rank", "compare scores with trained accuracies", rank.add),
    ("report", "put a run's rows in order and plot them", report.add),
    ("evaluate", "say how good a trained student is on a dataset", evaluate.add),
    ("export", "write a trained student as ONNX, for timm or for torch", export.add),
    ("predict", "classify images with a trained student", predict.add),
    ("profile", "measure this machine, for searches with --max-latency-ms", profile.add),
    ("inspect", "say what somebody's run or student holds, without acting on it", inspect.add),
    ("check-data", "read a dataset and say what is in it", check_data.add),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done; 2 wrong usage or data, one line; 1 the run failed, one line; 130 interrupted, one line."""
    return run(build_parser(), argv)


def build_parser() -> argparse.ArgumentParser:
    """The parser of `tvt`, with all its commands."""
    parser = Parser(prog="tvt", description="Training-free Vision Transformer search on tiny datasets.")
    parser.add_argument("--version", action="version", version=f"tvt_ray {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    for name, text, add in COMMANDS:
        add(commands.add_parser(name, help=text))
    return parser


def script_parser(prog: str, add: Callable[[argparse.ArgumentParser], None]) -> argparse.ArgumentParser:
    """Of search.py and distill.py: one command, no subcommands."""
    parser = Parser(prog=prog)
    add(parser)
    return parser


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> int:
    """Parses and executes; any exception becomes a line. With --debug, one that is not expected has its traceback."""
    words = sys.argv[1:] if argv is None else list(argv)
    args = parser.parse_args(words)
    args.words = [*(["python"] if parser.prog.endswith(".py") else []), parser.prog, *words]
    if hasattr(sys.stdout, "reconfigure"):  # a name that the terminal's encoding lacks is escaped, as on standard error
        sys.stdout.reconfigure(errors="backslashreplace")
    interrupts = Interrupts(lambda: _interrupted(args))
    try:
        with interrupts, _stdout_for(args), _resumed(args):
            for name in ("run_dir", "student"):  # not while parsing: a bucket is asked for its region over the network
                if isinstance(getattr(args, name, None), str):
                    setattr(args, name, as_location(getattr(args, name)))
            command: Command = args.command
            code = command(args)
            sys.stdout.flush()
            return code
    except BaseException as error:
        if interrupts.asked:  # whatever came of it: what was told to end tells of itself otherwise
            return _interrupted(args)
        return _failed(args, error)


def _interrupted(args: argparse.Namespace) -> int:
    return _fail(INTERRUPTED, f"interrupted{_resume_hint(args)}")


def _failed(args: argparse.Namespace, error: BaseException) -> int:
    """The exit code, after the line."""
    try:
        raise error
    except UsageError:
        if getattr(args, "debug", False) and error.__cause__:
            traceback.print_exc()
        return _fail(2, str(error))
    except RunError:
        return _fail(1, str(error))
    except KeyboardInterrupt:
        return _fail(1, f"interrupted{f' ({error})' if str(error) else ''}{_resume_hint(args)}")
    except BrokenPipeError:
        # What is left in the buffer would raise again when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _fail(1, f"standard output was closed before all was written{_resume_hint(args)}")
    except Exception:
        return _unexpected(args, error)


def _unexpected(args: argparse.Namespace, error: BaseException) -> int:
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return _fail(2, f"this system takes no name of that length: {shown(error.filename)[:MOST_OF_A_NAME]}…")
    if getattr(args, "debug", False):
        traceback.print_exc()
    advice = "" if getattr(args, "debug", False) else "; --debug shows where, which belongs in a report of it"
    return _fail(1, f"not expected: {type(error).__name__}: {_told(error)}{advice}{_resume_hint(args)}")


def _told(error: BaseException) -> str:
    """What an error says in a line: of one that Ray brings from another process, whose first lines are a traceback's
    head in colour, the last.
    """
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line).strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line]
    return (lines[-1] if lines and hasattr(error, "traceback_str") else first_line(error))[:500]


@contextlib.contextmanager
def _stdout_for(args: argparse.Namespace) -> Iterator[None]:
    """Ray's own threads print warnings to standard output, where --json promises one object as the last line."""
    args.stdout = sys.stdout
    with contextlib.redirect_stdout(sys.stderr) if getattr(args, "json", False) else contextlib.nullcontext():
        yield


def _resumed(args: argparse.Namespace) -> AbstractContextManager[None]:
    """Verbs say how all of this call goes on, where that can be; a benchmark's, say, how their own part does."""
    return resumed_by(lambda: repeated(args)) if getattr(args, "goes_on", False) else contextlib.nullcontext()


def _resume_hint(args: argparse.Namespace) -> str:
    """The command that goes on, once there is a run to go on with."""
    run_dir: Location | str | None = getattr(args, "run_dir", None)
    if run_dir is None or isinstance(run_dir, str) or not getattr(args, "goes_on", False):
        return ""
    try:
        return f"; go on with: {repeated(args)}" if (run_dir / "config.yaml").exists() else ""
    except (RunError, OSError):
        return ""


def repeated(args: argparse.Namespace) -> str:
    """The same call once more, of the same run, going on: what was asked for is asked for again."""
    words = list(args.words)
    if not any(word.partition("=")[0] in ("--run-dir", "--out") for word in words):
        words += ["--run-dir", str(args.run_dir)]
    if getattr(args, "resume", True) is False:
        words.append("--resume")
    return shlex.join(map(shown, words))


def _fail(code: int, message: str) -> int:
    print("error: " + " ".join(message.split()), file=sys.stderr, flush=True)
    return code
