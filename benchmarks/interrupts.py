"""Ctrl-C at any moment: does it end, within 5 seconds, with the command that goes on, and is anything lost?

python -m benchmarks interrupts [--runs 60] [--seed 0]

A search, a fit and a distillation of the digits, in turn, each as a process that gets SIGINT at a random moment of the
time that it takes undisturbed; then the command that it printed is run, or the first one again where it printed none.
The result: `runs`; `wrong_codes`, those that did not end with 130, unless all that was asked for was done and they gave
0; `late`, those that took more than 5 seconds for it, with `slowest_s`; `tracebacks`; `not_ended`, those whose
command did not end with 0; `unfinished`, those after which something that was asked for is not there; `rows_lost`, rows
that were on disk at the interrupt and are not at the end.
Exit code 1 where any of these is not 0.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.runner import REPO, Record
from tvt_ray.cli.interrupts import INTERRUPTED
from tvt_ray.cli.output import print_table
from tvt_ray.progress import say
from tvt_ray.runs.folder import RunFolder

NUM_ROWS, WITHIN_S = 200, 5.0
FLAGS = ("--set", "teacher_training.epochs=4", "--set", "distill.epochs=4", "--set", "space.depth=[4]")
FAULTS = ("wrong_codes", "late", "tracebacks", "not_ended", "unfinished", "rows_lost")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=int, default=60, metavar="N")
    parser.add_argument("--seed", type=int, default=0)


def measure(args: argparse.Namespace, record: Record) -> dict[str, Any]:
    return dict(record.once("tally", interrupts, args.runs, args.seed))


def show(result: Mapping[str, Any]) -> None:
    print_table(f"{result['runs']} interrupts", ["", ""], [[key, str(value)] for key, value in result.items()])


def failed(result: Mapping[str, Any]) -> bool:
    return any(result[name] for name in FAULTS)


def interrupts(num_runs: int, seed: int) -> dict[str, Any]:
    rng, tally = random.Random(seed), dict.fromkeys(FAULTS, 0)
    slowest, messages = 0.0, list[str]()
    with tempfile.TemporaryDirectory() as place:
        searched = Path(place) / "searched"  # whose students are distilled
        _whole(_search(searched))
        lasts = {kind: _seconds(kind, Path(place) / f"whole-{kind}", searched) for kind in KINDS}
        for number in range(num_runs):
            kind, folder = list(KINDS)[number % len(KINDS)], Path(place) / str(number)
            after = rng.uniform(0, lasts[kind])
            found = _interrupt(kind, folder, searched, after)
            for name in FAULTS:
                tally[name] += found[name]
            slowest = max(slowest, found["seconds"])
            faults = [name for name in FAULTS if found[name]]
            say(f"{kind} after {after:.1f} s: {found['seconds']:.1f} s, {faults or 'as it should'}; {found['last']}")
            messages += [f"{kind} after {after:.1f} s: {', '.join(faults)}"] if faults else []
    return {"runs": num_runs, **tally, "slowest_s": round(slowest, 1), "faults": messages}


def _search(folder: Path) -> list[str]:
    return [sys.executable, "search.py", "--num-samples", str(NUM_ROWS), "--run-dir", str(folder), *FLAGS]


def _fit(folder: Path) -> list[str]:
    flags = ["--set", f"search.num_samples={NUM_ROWS}", *FLAGS]
    return [sys.executable, "-m", "tvt_ray", "fit", "digits", "--out", str(folder), *flags]


def _distill(folder: Path) -> list[str]:
    return [sys.executable, "distill.py", "--run-dir", str(folder), "--top-k", "1"]


KINDS = {"search": _search, "fit": _fit, "distill": _distill}


def _begin(kind: str, folder: Path, searched: Path) -> list[str]:
    if kind == "distill":
        subprocess.run(["cp", "-r", str(searched), str(folder)], check=True)
    return KINDS[kind](folder)


def _seconds(kind: str, folder: Path, searched: Path) -> float:
    command, start = _begin(kind, folder, searched), time.monotonic()
    _whole(command)
    return time.monotonic() - start


def _whole(command: Sequence[str]) -> None:
    subprocess.run(command, cwd=REPO, check=True, capture_output=True)


def _interrupt(kind: str, folder: Path, searched: Path, after: float) -> dict[str, Any]:
    command = _begin(kind, folder, searched)
    process = subprocess.Popen(
        command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    time.sleep(after)
    before, start = _rows(folder), time.monotonic()
    was_over = process.poll() is not None
    os.killpg(process.pid, signal.SIGINT) if not was_over else None  # the whole group, as a terminal does
    _, err = process.communicate(timeout=120)
    seconds, last = time.monotonic() - start, (err.splitlines() or [""])[-1]
    was_over |= process.returncode == 0 and _is_whole(kind, folder)  # all was done and said when the signal came
    going_on = re.search(r"go on with: (.*)$", last)
    words = shlex.split(going_on[1]) if going_on else command
    words = [sys.executable, *words[1:]] if words[0] == "python" else words
    words = [sys.executable, "-m", "tvt_ray", *words[1:]] if words[0] == "tvt" else words
    ended = 0 if was_over else subprocess.run(words, cwd=REPO, capture_output=True, check=False).returncode
    return {
        "wrong_codes": int(not was_over and process.returncode != INTERRUPTED),
        "late": int(seconds > WITHIN_S),
        "tracebacks": int("Traceback" in err),
        "not_ended": int(ended != 0),
        "unfinished": int(not _is_whole(kind, folder)),
        "rows_lost": len(before - _rows(folder)),
        "seconds": seconds,
        "last": last,
    }


def _is_whole(kind: str, folder: Path) -> bool:
    """Whether all that was asked for is there."""
    return len(_rows(folder)) >= NUM_ROWS and (kind == "search" or any(folder.glob("distill/*/model.safetensors")))


def _rows(folder: Path) -> set[str]:
    run = RunFolder(folder)
    return {row.arch_id for row in run.rows().read()} if run.rows_folder.exists() else set()
