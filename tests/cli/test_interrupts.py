"""Ctrl-C of processes as a terminal starts them: in order, at once, and before anything has begun."""

import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import REPO

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
