#!/usr/bin/env python3
"""Fuzzes each target in turn, or those named: run.py BUILD_FOLDER [TARGET...]

FUZZ_SECONDS is how long each (60). Begins with the committed inputs and those of earlier runs, which are kept in BUILD_FOLDER/corpus; what
crashed a target is kept in BUILD_FOLDER/crashes. Prints a table, and exits 1 when something crashed.
"""

import os
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What an input may take: seconds, and MiB of memory.
LIMITS = ["-timeout=20", "-rss_limit_mb=2048", "-malloc_limit_mb=1024"]
COLUMNS = ("target", "seconds", "executions", "coverage", "inputs", "crashes")
ROW = "{:<18} {:>8} {:>12} {:>9} {:>7} {:>8}"


def fuzz(program, build, seconds):
    """Runs one of libFuzzer's programs; returns its row of the table."""
    corpus, crashes = build / "corpus" / program.name, build / "crashes" / program.name
    for folder in (corpus, crashes):
        folder.mkdir(parents=True, exist_ok=True)
    committed = ROOT / "tests" / "fuzz" / "corpus" / program.name
    log = build / "logs" / f"{program.name}.log"
    log.parent.mkdir(exist_ok=True)
    command = [program, f"-max_total_time={seconds}", "-print_final_stats=1", *LIMITS, f"-artifact_prefix={crashes}/", corpus, committed]
    options = {
        "TMPDIR": "/dev/shm",  # not at the disk's pace
        "LSAN_OPTIONS": f"suppressions={ROOT}/tests/support/lsan.supp:print_suppressions=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    before, start = set(crashes.iterdir()), time.monotonic()
    with open(log, "wb") as output:
        run = subprocess.run(command, env={**os.environ, **options}, stdout=output, stderr=subprocess.STDOUT)
    took = round(time.monotonic() - start)
    text = log.read_text(errors="replace")
    found = sorted(set(crashes.iterdir()) - before)
    executions = re.search(r"^stat::number_of_executed_units: (\d+)", text, re.MULTILINE)
    coverage = re.findall(r" cov: (\d+) .*corp: (\d+)", text)
    if found or run.returncode != 0:
        print(f"{program.name}: exit code {run.returncode}, {log}", *found, sep="\n  ", file=sys.stderr)
    covered, inputs = coverage[-1] if coverage else ("?", "?")
    return (program.name, took, executions[1] if executions else "?", covered, inputs, max(len(found), run.returncode != 0))


def mutate_http2(build, seconds):
    """Breaks HTTP/2 to a server's port, from a new seed each time."""
    seed, start = str(time.time_ns()), time.monotonic()
    log = build / "logs" / "http2.log"
    log.parent.mkdir(exist_ok=True)
    variables = {"PREGATE_SEED": seed, "PREGATE_SECONDS": str(seconds), "GRPC_VERBOSITY": "NONE"}
    with open(log, "wb") as output:
        run = subprocess.run(
            [build / "bin" / "tests" / "http2_mutator_test"], env={**os.environ, **variables}, stdout=output, stderr=subprocess.STDOUT
        )
    took = round(time.monotonic() - start)
    connections = re.search(r"^(\d+) connections", log.read_text(errors="replace"), re.MULTILINE)
    if run.returncode != 0:
        print(f"http2: exit code {run.returncode}, PREGATE_SEED={seed}, {log}", file=sys.stderr)
    return ("http2", took, connections[1] if connections else "?", "-", "-", int(run.returncode != 0))


def main():
    build = pathlib.Path(sys.argv[1]).resolve()
    programs = {path.name: path for path in sorted((build / "bin" / "fuzz").iterdir()) if path.name != "make_seeds"}
    targets = sys.argv[2:] or [*programs, "http2"]
    for target in targets:
        if target not in (*programs, "http2"):
            sys.exit(f"{target} is none of {', '.join([*programs, 'http2'])}")
    seconds = int(os.environ.get("FUZZ_SECONDS", "60"))
    print(ROW.format(*COLUMNS), flush=True)
    crashes = 0
    for target in targets:
        row = mutate_http2(build, seconds) if target == "http2" else fuzz(programs[target], build, seconds)
        crashes += row[-1]
        print(ROW.format(*row), flush=True)
    sys.exit(1 if crashes else 0)


if __name__ == "__main__":
    main()
