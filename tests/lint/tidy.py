#!/usr/bin/env python3
"""Runs clang-tidy over every file of a build's compile_commands.json: tidy.py BUILD_FOLDER

A file whose preprocessed text and whose .clang-tidy were clean before is skipped: the stamps lie in ~/.cache/pregate/tidy.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "pregate" / "tidy"
FOLDERS = ("core", "server", "client", "bench", "tools")


def fingerprint(entry):
    """A hash of all that clang-tidy would see of one file."""
    command = [word for word in shlex.split(entry["command"]) if not word.endswith("ccache")]
    output = command.index("-o")
    preprocess = command[:output] + command[output + 2 :]
    preprocess[preprocess.index("-c")] = "-E"
    text = subprocess.run([*preprocess, "-P"], cwd=entry["directory"], check=True, capture_output=True).stdout
    return hashlib.sha256((ROOT / ".clang-tidy").read_bytes() + text).hexdigest()


def tidy(entry, build):
    """Returns what clang-tidy complains about in one file, '' when it is clean."""
    stamp = CACHE / fingerprint(entry)
    if stamp.exists():
        return ""
    run = subprocess.run(["clang-tidy-14", "--quiet", "-p", str(build), entry["file"]], capture_output=True, text=True)
    if run.returncode == 0:
        stamp.touch()
        return ""
    return run.stdout + run.stderr


def main():
    build = pathlib.Path(sys.argv[1])
    CACHE.mkdir(parents=True, exist_ok=True)
    entries = {}
    for entry in json.loads((build / "compile_commands.json").read_text()):
        path = pathlib.Path(entry["file"])
        if path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in FOLDERS:
            entries[path] = entry
    failures = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for complaint in pool.map(lambda entry: tidy(entry, build), entries.values()):
            if complaint:
                failures += 1
                print(complaint)
    print(f"clang-tidy: {len(entries) - failures} of {len(entries)} files clean")
    sys.exit(1 if failures or not entries else 0)


if __name__ == "__main__":
    main()
