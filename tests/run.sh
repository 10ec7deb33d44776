#!/usr/bin/env bash
# Builds a preset and runs its tests: tests/run.sh dev|asan|tsan [ctest arguments]. Ends with `N passed, N failed`, counting single
# test cases, and fails when one failed.
set -euo pipefail
cd "$(dirname "$0")/.."
preset=$1; shift
build=build/$preset
cmake --preset "$preset" >"/tmp/pregate-configure-$$.log" 2>&1 || { cat "/tmp/pregate-configure-$$.log"; exit 1; }
rm -f "/tmp/pregate-configure-$$.log"
cmake --build --preset "$preset" -j "${JOBS:-$(nproc)}"
rm -rf "$build/results" && mkdir -p "$build/results"
rc=0
GTEST_OUTPUT="xml:$PWD/$build/results/" ctest --preset "$preset" --output-junit "$PWD/$build/results/ctest.junit" "$@" || rc=$?
tests/tally.py "$build/results" || rc=$?
exit "$rc"
