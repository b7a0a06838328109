"""Ctrl-C of processes as a terminal starts them: in order, at once, and before anything has begun."""

import shlex
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import REPO
from tvt_ray.cli.main import build_parser, repeated, run
from tvt_ray.cli.options import Parser
from tvt_ray.runs.resuming import resume_command

pytestmark = pytest.mark.slow  # each starts a process

# A command that says when it has begun, and then does what the test gives it.
PROGRAM = """
import argparse, signal, sys, time
from tvt_ray.cli import interrupts
from tvt_ray.cli.interrupts import end_at_once, leave
from tvt_ray.cli.main import run
from tvt_ray.errors import RunError
interrupts.GRACE_S = 1.0
def command(args):
    print("begun", flush=True)
    {body}
    return 0
parser = argparse.ArgumentParser()
parser.set_defaults(command=command)
end_at_once()
leave(run(parser, []))
"""
BODIES = {
    "waits": "time.sleep(60)",
    "ignores it": "signal.signal(signal.SIGINT, lambda *_: None); [time.sleep(0.05) for _ in range(1200)]",
    "makes an error of it": "\n".join(
        ["try: time.sleep(60)", "    except KeyboardInterrupt: raise RunError('stopped after 3 of 9; go on with: x')"]
    ),
    "swallows it and ends": "\n".join(["try: time.sleep(60)", "    except KeyboardInterrupt: pass"]),
}


def start(body):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(body=body)],
        cwd=REPO,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "begun\n"
    time.sleep(0.2)  # until it waits
    return process


@pytest.mark.parametrize("what", ["waits", "ignores it", "makes an error of it"])
def test_the_first_ends_with_a_line_and_130(what):
    process = start(BODIES[what])
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=5)
    assert (process.returncode, err) == (130, "error: interrupted\n")


def test_what_ended_all_the_same_is_done():
    process = start(BODIES["swallows it and ends"])
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=5)[1] == ""
    assert process.returncode == 0


def test_the_second_ends_at_once():
    process = start(BODIES["ignores it"])
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=5)
    assert process.returncode == 130
    assert time.monotonic() - started < 0.4  # the grace, which is a second here, is not waited for


def test_sigterm_is_a_failed_run():
    process = start(BODIES["waits"])
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=5)
    assert (process.returncode, err) == (1, "error: interrupted (SIGTERM)\n")


@pytest.mark.parametrize("command", [["search.py"], ["-m", "tvt_ray", "check-data", "digits"]], ids=" ".join)
def test_in_the_first_second_there_is_no_traceback(command, tmp_path):
    """While modules are imported; at several moments, since one may be before Python itself has begun."""
    for after in (0.2, 0.4, 0.8):
        process = subprocess.Popen(
            [sys.executable, *command, *(["--run-dir", str(tmp_path / "run")] if command == ["search.py"] else [])],
            cwd=REPO,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(after)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
        assert process.returncode == 130, err
        assert "Traceback" not in err


def test_half_an_import_keeps_nobody_from_saying_how_to_go_on(tmp_path):
    """Python forgets a module whose import was cut short, but not the parts of it that were imported."""
    code = """
import os, signal, sys
from tvt_ray.cli.interrupts import end_at_once, leave
end_at_once()
from tvt_ray.cli.distill import add
from tvt_ray.cli.main import run, script_parser
class Impatient:
    def find_spec(self, name, path=None, target=None):
        if name == "yaml.tokens":  # yaml.error is there, yaml is not
            os.kill(os.getpid(), signal.SIGINT)
parser = script_parser("distill.py", add)
sys.meta_path.insert(0, Impatient())
leave(run(parser, sys.argv[1:]))
"""
    (tmp_path / "config.yaml").write_text("format: 2\n")
    flags = ["--run-dir", str(tmp_path), "--top-k", "2", "--set", "distill.epochs=3"]
    done = subprocess.run(
        [sys.executable, "-c", code, *flags], cwd=REPO, capture_output=True, text=True, timeout=60, check=False
    )
    again = f"python distill.py --run-dir {tmp_path} --top-k 2 --set distill.epochs=3 --resume"
    assert (done.returncode, done.stderr) == (130, f"error: interrupted; go on with: {again}\n")


@pytest.mark.parametrize(
    ("words", "more"),
    [
        (["tvt", "fit", "my photos", "--out", "here", "--minutes", "3"], []),
        (["tvt", "search", "--refine", "16", "--distill-top-k", "2", "--run-dir", "here"], ["--resume"]),
        (["tvt", "search", "--num-samples", "9"], ["--run-dir", "here", "--resume"]),
        (["tvt", "refine", "--run-dir=here", "--num-students", "16", "--resume"], []),
    ],
)
def test_what_goes_on_is_the_same_call(words, more):
    args = build_parser().parse_args(words[1:])
    args.words, args.run_dir = words, "here"
    assert repeated(args) == shlex.join([*words, *more])


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_verb_says_how_the_call_goes_on_that_it_is_a_part_of(goes_on, tmp_path, capsys):
    """A benchmark, whose calls go on otherwise, leaves it to its verbs."""
    parser = Parser(prog="tvt")
    parser.add_argument("--part")
    parser.set_defaults(
        command=lambda args: print(resume_command(tmp_path, "tvt refine")) or 0, goes_on=goes_on, run_dir=tmp_path
    )
    assert run(parser, ["--part", "a b"]) == 0
    own = f"tvt refine --run-dir {tmp_path} --resume\n"
    assert capsys.readouterr().out == (f"tvt --part 'a b' --run-dir {tmp_path}\n" if goes_on else own)


def test_an_interrupt_while_python_ends_changes_nothing():
    """All was done and said. The longer part of the end, after Python put the default back, which killed."""
    code = """
import signal, sys, time
class Late:
    def __del__(self):  # when modules are cleared: signals have no handlers of Python's any more
        signal_at_end("late")
def signal_at_end(text, write=sys.stderr.write, flush=sys.stderr.flush, sleep=time.sleep):
    write(text + chr(10)); flush(); sleep(0.7)
from tvt_ray.cli.interrupts import end_at_once, leave
end_at_once()
sys.modules["kept until the end"] = Late()
print("done", flush=True)
leave(int(sys.argv[1]))
"""
    for expected in (0, 2):
        command = [sys.executable, "-c", code, str(expected)]
        process = subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stderr.readline() == "late\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
        assert (process.returncode, out, err) == (expected, "done\n", "")
