"""Takes pictures of Ray's dashboard and of Prometheus during a search and a training, on a cluster of three machines.

python -m benchmarks dashboard [--pictures docs] [--num-samples 1000] [--seed 0]

The machines are those of `cluster_lab`, brought up by `ray up` with the shipped file. The search is a job, by
`ray job submit`; the dashboard is reached as its users reach it, through a tunnel and with the token; the browser is a
real one. A picture is taken once what it is to show is there, so a page that lacks it fails the command. It needs what
`cluster_lab` needs, prometheus, chromium with its driver (Debian: chromium-driver), and `pip install selenium`; a few
minutes.

The result: `steps`, each with whether it went as it should and its seconds, and `pictures`, their files' names. Exit
code 1 where one could not be taken.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cluster_lab import BIN, HEAD, WORKERS, Rehearsal
from benchmarks.machines import wait_for_rows
from benchmarks.namespaces import Lab, laboratory
from benchmarks.runner import REPO, Record
from tvt_ray.cli.output import print_table
from tvt_ray.errors import RunError, UsageError
from tvt_ray.progress import say

DASHBOARD, PROMETHEUS = 8265, 9090  # ports, on the head and at this end of the tunnel
WIDTH, HEIGHT = 1200, 1100
SHOWN_WITHIN_S, DRAWN_S = 90.0, 3.0  # that a page has to show what is wanted; and that its charts have after that
SPEED = "sum(rate(ray_tvt_archs_scored_total[30s]))"
EPOCHS = 20  # of a training that is looked at
FOUND = """
const found = document.evaluate(arguments[0], document, null, XPathResult.FIRST_ORDERED_NODE_TYPE).singleNodeValue;
"""
CLICK = FOUND + 'if (found) found.dispatchEvent(new MouseEvent("click", {bubbles: true}))'
LOGS = "(//*[text()='Logs'])[last()]"  # of a job's page: the first is the menu's
CALLS = "//*[text()='Hide finished']/following::*[name()='svg'][1]"  # of a job, by what is called


@dataclass(frozen=True)
class Page:
    """What is pictured: a name, an address, and texts that are on it."""

    name: str
    address: str
    texts: Sequence[str]
    unfold: str = ""  # what is clicked first, as XPath
    top: str = ""  # likewise, what the picture begins with


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="where they go (default: beside the result)")
    parser.add_argument("--num-samples", type=int, default=1000, metavar="N")
    parser.add_argument("--seed", type=int, default=0)


def measure(args: argparse.Namespace, record: Record) -> dict[str, Any]:
    folder = (args.pictures or record.folder / "pictures").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with laboratory() as lab:
        return Watched(lab, args.num_samples, args.seed, folder).run()


class Watched(Rehearsal):
    """The cluster of the laboratory, looked at."""

    def __init__(self, lab: Lab, num_samples: int, seed: int, folder: Path) -> None:
        super().__init__(lab, num_samples, 0, seed)
        self.folder, self.browser = folder, open_browser()

    def run(self) -> dict[str, Any]:
        """All pictures, until one fails."""
        try:
            for number in (HEAD, *WORKERS):
                self.lab.machine(number)
            if self._step("up", self.up):
                with self._prometheus(), self._tunnel():
                    _ = self._step("search", self.search) and self._step("distill", self.distill)
                self._step("down", self.down)
        finally:
            self.browser.quit()
        return {"steps": self.steps, "pictures": sorted(path.name for path in self.folder.glob("dashboard_*.png"))}

    def search(self) -> dict[str, Any]:
        """A job on the cluster."""
        run = self.lab.folder / "runs" / "watched"
        job = self._job("first", f"search.py --run-dir {run} {' '.join(self._search_flags)}")
        self._open(f"{self._at(DASHBOARD)}/")
        self._give_the_token()
        wait_for_rows(job, run, 200)
        self._take(Page("job", "/#/jobs/first", ("first", "RUNNING", "ScoringTrial"), unfold=CALLS))
        self._take(Page("actors", "/#/actors", ("ScoringTrial", "ALIVE")))
        self._take(Page("cluster", "/#/cluster", [self.lab.machine(number).address for number in (HEAD, *WORKERS)]))
        self._take(Page("logs", "/#/jobs/first", ("DRIVER", "calibrat"), top=LOGS))
        self._draw("search", SPEED)
        _finish(job)
        return {"run": run.name}

    def distill(self) -> dict[str, Any]:
        """Two workers on two machines."""
        run = self.lab.folder / "runs" / "watched"
        job = self._job("second", f"distill.py --run-dir {run} --num-workers 2 --epochs {EPOCHS}")
        self._draw("train", "ray_tvt_val_accuracy_percent")
        texts = ("RayTrainWorker", "TrainController", "TrainingBoard")
        self._take(Page("train", "/#/actors", texts, top="//*[text()='RayTrainWorker']"))
        _finish(job)
        return {"run": run.name}

    def _job(self, name: str, words: str) -> subprocess.Popen[str]:
        """`ray job submit`, as docs/cluster.md has it, up to the job's end."""
        submit = f"{BIN}/ray job submit --address http://localhost:{DASHBOARD} --submission-id {name} --working-dir ."
        path = {"PATH": f"{BIN}:{os.environ['PATH']}"}
        command = self.head.ssh(f"{submit} -- python {words} --json", {**self._variables, **path})
        return subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    @contextlib.contextmanager
    def _tunnel(self) -> Iterator[None]:
        """The head's ports here, as `ray dashboard` brings them."""
        ports = [word for port in (DASHBOARD, PROMETHEUS) for word in ("-L", f"{port}:localhost:{port}")]
        process = subprocess.Popen([*self.head.ssh("")[:-2], *ports, "-N", f"root@{self.head.address}"])
        try:
            for port in (DASHBOARD, PROMETHEUS):
                _wait_for_port(port)
            yield
        finally:
            process.kill()
            process.wait()

    @contextlib.contextmanager
    def _prometheus(self) -> Iterator[None]:
        """On the head, as docs/dashboard.md has it."""
        command = "prometheus --config.file=dashboards/prometheus.yml --storage.tsdb.path=/tmp/prometheus"
        process = subprocess.Popen(self.head.ssh(command), stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            self.head.run("pkill -f [p]rometheus.yml", check=False)
            process.wait()

    def _at(self, port: int) -> str:
        return f"http://localhost:{port}"

    def _give_the_token(self) -> None:
        """As its user does, who is asked for it."""
        from selenium.webdriver.common.by import By

        self._wait(("Authentication Token",))
        self._keep("token")
        (field,) = self.browser.find_elements(By.CSS_SELECTOR, "[role=dialog] input")
        field.send_keys((self.home / ".ray" / "auth_token").read_text().strip())
        buttons = self.browser.find_elements(By.CSS_SELECTOR, "[role=dialog] button")
        next(button for button in buttons if button.text.strip().lower() == "submit").click()
        self._wait(("Overview",))

    def _take(self, page: Page) -> None:
        self._open(f"{self._at(DASHBOARD)}{page.address}")
        self._wait(page.texts, unfold=page.unfold)
        if page.top:
            self.browser.execute_script(FOUND + "found.scrollIntoView()", page.top)
        self._keep(page.name)

    def _draw(self, name: str, expression: str) -> None:
        """Prometheus' own graph of a query, once it has data to draw."""
        self._wait_for_data(expression)
        query = urllib.parse.urlencode({"g0.expr": expression, "g0.tab": "0", "g0.range_input": "3m"})
        self._open(f"{self._at(PROMETHEUS)}/graph?{query}")
        self._wait(["Remove Graph"])
        self._keep(f"prometheus_{name}")

    def _wait_for_data(self, expression: str) -> None:
        """Until a query has three values a series. Raises RunError where it gets none."""
        deadline = time.monotonic() + SHOWN_WITHIN_S
        while True:
            span = {"query": expression, "start": time.time() - 300, "end": time.time(), "step": 10}
            asked = f"{self._at(PROMETHEUS)}/api/v1/query_range?{urllib.parse.urlencode(span)}"
            with urllib.request.urlopen(asked, timeout=10) as response:
                series = json.load(response)["data"]["result"]
            if series and min(len(each["values"]) for each in series) >= 3:
                return
            if time.monotonic() > deadline:
                raise RunError(f"Prometheus has {series or 'nothing'} of {expression}")
            time.sleep(2)

    def _open(self, address: str) -> None:
        self.browser.get("about:blank")  # of two addresses that differ behind their # the second is not loaded
        self.browser.get(address)

    def _wait(self, texts: Sequence[str], unfold: str = "") -> None:
        """Until all of them are on the page, and it had time to draw. Raises RunError with what the page says."""
        deadline = time.monotonic() + SHOWN_WITHIN_S
        while True:
            said = self.browser.execute_script("return document.body.innerText")
            missing = [text for text in texts if text not in said]
            if not missing:
                time.sleep(DRAWN_S)
                return
            if time.monotonic() > deadline:
                self._keep("unexpected")
                raise RunError(f"{self.browser.current_url} does not show {missing}, but: {said[-500:]!r}")
            time.sleep(1)
            if unfold:
                self.browser.execute_script(CLICK, unfold)
                time.sleep(1)

    def _keep(self, name: str) -> None:
        file = self.folder / f"dashboard_{name}.png"
        self.browser.save_screenshot(str(file))
        say(f"picture: {file}")


def open_browser() -> Any:
    """A headless Chromium. Raises UsageError with what is missing."""
    try:
        from selenium import webdriver
    except ImportError:
        raise UsageError("pictures need selenium: pip install selenium") from None
    missing = [name for name in ("chromedriver", "prometheus") if shutil.which(name) is None]
    if missing:
        raise UsageError(f"pictures need {', '.join(missing)} (Debian: chromium-driver, prometheus)")
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--hide-scrollbars", f"--window-size={WIDTH},{HEIGHT}"):
        options.add_argument(flag)
    service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
    return webdriver.Chrome(options=options, service=service)


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + SHOWN_WITHIN_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("localhost", port), timeout=1):
            return
        if time.monotonic() > deadline:
            raise RunError(f"nothing answers at port {port} of the tunnel")
        time.sleep(0.2)


def _finish(job: subprocess.Popen[str]) -> None:
    out, err = job.communicate(timeout=600)
    if job.returncode:
        raise RunError(f"the job ended with {job.returncode}: {(out + err)[-2000:]}")


def show(result: Mapping[str, Any]) -> None:
    rows = [[each["name"], "yes" if each["ok"] else "NO", f"{each['wall_s']:.0f} s"] for each in result["steps"]]
    print_table("dashboard", ["step", "as it should", "took"], rows)


def failed(result: Mapping[str, Any]) -> bool:
    return not all(each["ok"] for each in result["steps"])
