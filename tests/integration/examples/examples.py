#!/usr/bin/env python3
"""Runs the shell examples of the documents as they stand: examples.py BIN_FOLDER

Every ```sh block of README.md (but those that clone and build), docs/client.md, api.md, codecs.md, expert-offload.md, from-the-prototype.md, metrics.md, model-tool.md and security.md is run by bash
against a server on the default ports, started here (the README's and security.md's blocks start their own). A command that fails fails its block.
"""

import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[3]
PORTS = (50051, 8002)
START_THEIR_OWN = ("README.md", "docs/security.md")


def blocks(document):
    """The ```sh blocks of a document, with the line that each begins at."""
    text = (ROOT / document).read_text()
    for match in re.finditer(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield text[: match.start()].count("\n") + 2, match.group(1)


def run(script, env, folder):
    return subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)


def missing_programs(script, env):
    """Programs that a block uses and this machine lacks."""
    return [name for name in ("grpcurl", "grpc-health-probe", "jq", "curl") if re.search(rf"\b{name}\b", script) and not shutil.which(name, path=env["PATH"])]


def main():
    binaries = pathlib.Path(sys.argv[1]).resolve()
    for port in PORTS:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                sys.exit(f"port {port} is taken: the examples use the default ports")
    deps = pathlib.Path(os.environ.get("PREGATE_DEPS") or pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "pregate" / "deps")
    env = dict(os.environ, PATH=f"{binaries}:{deps / 'bin'}:{os.environ['PATH']}")
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        # The examples stand in a checkout; here its parts are linked, so that what they write goes nowhere else.
        folder = pathlib.Path(temporary)
        for part in ("models", ".git"):
            (folder / part).symlink_to(ROOT / part)
        (folder / "build" / "release").mkdir(parents=True)
        (folder / "build" / "release" / "bin").symlink_to(binaries)
        (folder / "prompt.txt").write_text("The Linux kernel is\n")
        for document in ("README.md", "docs/client.md", "docs/api.md", "docs/codecs.md", "docs/expert-offload.md", "docs/from-the-prototype.md", "docs/metrics.md", "docs/model-tool.md", "docs/security.md"):
            server = None
            if document not in START_THEIR_OWN:
                server = subprocess.Popen([binaries / "pregated", "--model", ROOT / "models" / "switch-mini"], env=env, stderr=subprocess.DEVNULL)
                subprocess.run([binaries / "pregate", "--wait", "120s", "health"], check=True, stdout=subprocess.DEVNULL)
            for line, script in blocks(document):
                # What installs and builds is what the reader has done before; `--watch` ends only by a signal.
                if "git clone" in script or (document == "README.md" and "pregated" not in script):
                    continue
                script = "\n".join(row for row in script.splitlines() if "--watch" not in row)
                if missing := missing_programs(script, env):
                    print(f"skipped {document}:{line}: no {', '.join(missing)}")
                    continue
                result = run(script, env, folder)
                print(f"{'ok' if result.returncode == 0 else 'FAILED'} {document}:{line}")
                if result.returncode != 0:
                    failed += 1
                    print(result.stdout + result.stderr)
            if server is not None:
                server.terminate()
                if server.wait(60) != 0:
                    failed += 1
                    print(f"the server of {document} exited with {server.returncode}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
