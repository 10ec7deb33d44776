#!/usr/bin/env python3
"""Checks that includes point down (docs/architecture.md): layers.py [ROOT]

Reads every #include of every C++ and CUDA file below ROOT and compares it with the tables below. Prints each violation as
`file:line: reason` and exits 1 when there is one.
"""

import pathlib
import re
import sys

# Which modules a module's files may include, besides its own. The facade is core/pregate.*; `core` stands for all of core.
CORE_MODULES = ["base", "device", "storage", "text", "kernel", "expert", "engine", "model"]
ALLOWED = {
    "core/base": [],
    "core/device": ["core/base"],
    "core/storage": ["core/base"],
    "core/text": ["core/base"],
    "core/engine": ["core/base"],
    "core/kernel": ["core/device", "core/base"],
    "core/expert": ["core/kernel", "core/storage", "core/device", "core/base"],
    "core/model": ["core/expert", "core/engine", "core/kernel", "core/storage", "core/device", "core/base"],
    "core/pregate": [f"core/{module}" for module in CORE_MODULES],
    "proto": [],
    "tools": ["core/pregate", *(f"core/{module}" for module in CORE_MODULES)],
    "bench": ["core/pregate", *(f"core/{module}" for module in CORE_MODULES), "tools/cli.h"],
    "client": ["proto", "core/base", "tools/cli.h"],
    "server": ["core/pregate", "core/engine/request.h", "core/engine/response_stream.h", "core/text", "core/base", "proto", "tools/cli.h"],
}

# Single files that may include more than their module: path without its ending.
ALLOWED_TO_FILES = {"bench/grpc_overhead": ["server", "proto"]}  # measures the server

# Third-party headers that only some modules may include: pattern of the header, modules. What is not listed (absl, the standard
# library) may be included anywhere.
THIRD_PARTY = [
    (r"(grpc|grpcpp|grpc\+\+)/", ["server", "client", "proto", "bench/grpc_overhead"]),
    (r"google/(protobuf|rpc)/|.*\.pb\.h$", ["server", "client", "proto", "bench/grpc_overhead"]),
    (r"prometheus/", ["server"]),
    (r"httplib\.h$", ["server"]),
    (r"openssl/", ["server"]),
    (r"(torch|ATen|c10)/", ["core/model"]),
    (r"nlohmann/", ["core/storage", "core/model", "tools", "bench"]),
    (r"zstd\.h$", ["core/storage", "bench"]),
    (r"zlib\.h$", ["bench"]),
    (r"xxhash\.h$", ["core/storage"]),
    (r"CLI/", ["tools", "server", "client", "bench"]),
    (r"(cuda|cuda_runtime|cublasLt|cupti|nvToolsExt|nvtx3/.*)(\.h|\.cuh)?$", ["cuda files"]),
]

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
SUFFIXES = {".h", ".cc", ".cu", ".cuh"}


def module_of(path):
    """The module of a path from the root: 'core/base' of 'core/base/log.h', 'server' of 'server/main.cc'; None outside the layers."""
    parts = path.split("/")
    if parts[0] == "core":
        if len(parts) == 2:
            return "core/pregate"
        return "/".join(parts[:2])
    return parts[0] if parts[0] in ALLOWED else None


def target_of(header):
    """The module that a quoted or bracketed header of ours belongs to; None when it is not ours."""
    if header.startswith("pregate/v1/") or header.startswith("google/rpc/"):
        return "proto"
    return module_of(header) if "/" in header else None


def may_include(path, module, header):
    target = target_of(header)
    allowed = ALLOWED[module] + ALLOWED_TO_FILES.get(path.rsplit(".", 1)[0], [])
    return target is None or target == module or any(entry in (target, header) for entry in allowed)


def is_cuda(path):
    """Device code differs by file: cuda_backend.cc, router_cuda.cu."""
    return re.search(r"(^|_)cuda[_.]", path.rsplit("/", 1)[-1]) is not None


def may_use(path, module, header):
    for pattern, owners in THIRD_PARTY:
        if re.match(pattern, header):
            named = [module, path.rsplit(".", 1)[0], *(["cuda files"] if is_cuda(path) else [])]
            return any(owner in named for owner in owners)
    return True


def violations(root):
    for file in sorted(root.rglob("*")):
        path = file.relative_to(root).as_posix()
        module = module_of(path)
        if file.suffix not in SUFFIXES or module is None:
            continue
        if module not in ALLOWED:
            yield f"{path}:1: {module} is not a module; a new folder under core/ needs an ADR and a row in tests/lint/layers.py"
            continue
        for number, line in enumerate(file.read_text().splitlines(), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            header = match.group(2)
            if not may_include(path, module, header):
                yield f"{path}:{number}: {module} may not include {header}"
            elif not may_use(path, module, header):
                yield f"{path}:{number}: {module} may not include the third-party header {header}"
            elif match.group(1) == '"' and header.startswith("."):
                yield f"{path}:{number}: write {header} as a path from the root"


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parents[2])
    found = list(violations(root))
    print("\n".join(found) if found else "layers: all includes point down")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
