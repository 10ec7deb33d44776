"""A real pregated, a real Prometheus that scrapes it, and clients that load it: for tests, tables and pictures.

Everything listens on ports of the system's choice and is gone when its `with` ends.
"""

import contextlib
import json
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROMETHEUS_FOLDER = ROOT / "deploy" / "prometheus"
DASHBOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))

# A quarter of the experts on the device, half of them in host memory, and a link of PCIe's ways: so every tier is at work.
PREGATED_FLAGS = ["--expert-capacity", "25%", "--host-memory-budget", "4MiB", "--simulated-link", "2GiB/s,10us", "--layer-metrics", "--max-running", "4"]

PROMPTS = ("The Linux kernel is", "In the beginning", "To install the package, ", "Once upon a time there was", "The history of")

# Proxies of the machine are not asked for what is on it.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch(url):
    with _OPENER.open(url, timeout=30) as answer:
        return answer.read().decode()


class LoggingProgram:
    """A program whose stderr is followed: it says there where it listens."""

    def __init__(self, argv):
        self._name = pathlib.Path(argv[0]).name
        self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self._lines = []
        self._ended = False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._process.stderr:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def await_line(self, pattern):
        """The first group of the first line that matches; raises when the program ends before."""
        with self._changed:
            while True:
                for line in self._lines:
                    if match := re.search(pattern, line):
                        return match.group(1) if match.groups() else match.group()
                if self._ended:
                    raise RuntimeError(f"{self._name} ended before it said {pattern!r}:\n{''.join(self._lines)}")
                self._changed.wait()

    def stop(self):
        """Ends it gently; its exit code."""
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(60)
        self._reader.join()
        self._process.stderr.close()
        return code


@contextlib.contextmanager
def pregated(binaries, flags=PREGATED_FLAGS, model="switch-mini"):
    """A server that is ready: (gRPC address, HTTP address)."""
    argv = [str(binaries / "pregated"), "--model", str(ROOT / "models" / model), "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", *flags]
    program = LoggingProgram(argv)
    try:
        program.await_line(r" INFO serving ")
        yield program.await_line(r"gRPC listening address=(\S+)"), program.await_line(r"HTTP listening address=(\S+)")
    finally:
        program.stop()


def wait_until(condition, what, timeout=60):
    """What `condition` returns, as soon as that is true."""
    end = time.monotonic() + timeout
    while not (result := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not so within {timeout} s")
        time.sleep(0.1)
    return result


class Prometheus:
    def __init__(self, address):
        self._url = f"http://{address}/api/v1/"

    def get(self, path, **parameters):
        """The `data` of an answer of the HTTP API; urllib.error.HTTPError when it refuses."""
        return json.loads(fetch(self._url + path + "?" + urllib.parse.urlencode(parameters)))["data"]

    def query(self, expression):
        return self.get("query", query=expression)["result"]

    def query_range(self, expression, start, end, step):
        return self.get("query_range", query=expression, start=start, end=end, step=step)["result"]

    def wait_for(self, expression):
        """Returns the series for which `expression`, a comparison, holds, as soon as there is one."""
        return wait_until(lambda: self.query(expression), expression)


def shipped_configuration(folder, target, interval):
    """deploy/prometheus, copied to a folder, scraping `target` every `interval`; the path of prometheus.yml."""
    for file in PROMETHEUS_FOLDER.glob("*.yml"):
        shutil.copy(file, folder)
    path = folder / "prometheus.yml"
    text = path.read_text()
    for pattern, replacement in ((r"(targets: \[)[^\]]*", rf'\g<1>"{target}"'), (r"((?:scrape|evaluation)_interval: )\S+", rf"\g<1>{interval}"), (r"(scrape_timeout: )\S+", rf"\g<1>{interval}")):
        text, count = re.subn(pattern, replacement, text)
        if count == 0:
            raise RuntimeError(f"{PROMETHEUS_FOLDER}/prometheus.yml has nothing like {pattern!r}")
    path.write_text(text)
    return path


def panel_queries(dashboard, rate_interval):
    """(panel, legend, expression) of each query of a dashboard as Grafana would send it, for all models and servers."""
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            expression = target["expr"].replace("$model", ".*").replace("$instance", ".*").replace("$__rate_interval", rate_interval)
            yield panel, target["legendFormat"], expression


@contextlib.contextmanager
def prometheus(target, interval="250ms"):
    """Prometheus with the shipped configuration and rules, scraping `target`."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        configuration = shipped_configuration(folder, target, interval)
        program = LoggingProgram(["prometheus", f"--config.file={configuration}", f"--storage.tsdb.path={folder / 'data'}", "--web.listen-address=127.0.0.1:0"])
        try:
            address = program.await_line(r'msg="Listening on".* address=(\S+)')
            program.await_line(r"Server is ready to receive web requests")
            yield Prometheus(address)
        finally:
            program.stop()


class Load:
    """Clients that keep asking, each for one text after the other, until the `with` ends. Most are answered; some give up early, and some ask for what cannot be."""

    def __init__(self, binaries, address, clients=6, max_tokens=96):
        self._client = [str(binaries / "pregate"), "--server", address]
        self._max_tokens = max_tokens
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(clients)]

    def _ask(self, number):
        turn = number
        while not self._stopped.is_set():
            turn += 1
            arguments = ["generate", "--max-tokens", str(self._max_tokens), "--seed", str(turn), "--temperature", "1", PROMPTS[turn % len(PROMPTS)]]
            if turn % 7 == 0:
                arguments = ["--deadline", "30ms", *arguments]
            elif turn % 11 == 0:
                arguments[2] = "1000000000"
            subprocess.run([*self._client, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stopped.set()
        for thread in self._threads:
            thread.join()
