#!/usr/bin/env bash
# All static checks, each named; fails when one failed, after running them all.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
failed=()
step() { local name=$1; shift; echo "== $name"; "$@" || failed+=("$name"); }

format() { git ls-files '*.h' '*.cc' | xargs clang-format-14 --dry-run --Werror; }
shell() { git ls-files '*.sh' .ci/run | xargs shellcheck -S warning; }
tidy() { cmake --preset dev >/dev/null && cmake --build --preset dev --target pregate_proto >/dev/null && tests/lint/tidy.py build/dev; }

step layers tests/lint/layers.py
step layers_test tests/lint/layers_test.py
step links tests/lint/links.py
step format format
step shellcheck shell
step clang-tidy tidy
if [ ${#failed[@]} -gt 0 ]; then echo "check: failed: ${failed[*]}"; exit 1; fi
echo "check: all clean"
