#!/usr/bin/env bash
# Measures both trained models and a random Switch of the research prototype's size: run.sh BIN [FOLDER]
# BIN holds the programs; FOLDER (default: build/bench) keeps the random model between runs.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=${1:?usage: run.sh BIN [FOLDER]}
folder=${2:-build/bench}

if [[ ! -e $folder/switch-S/model.safetensors ]]; then
  mkdir -p "$folder"
  "$bin/pregate-model" synthesize --shape S "$folder/switch-S"
fi

cpu=$(awk -F ': ' '/^model name/ {print $2; exit}' /proc/cpuinfo)
isa=$(grep -o -m 1 -w -E 'avx512f|avx2' /proc/cpuinfo | sort -u | tr '\n' ' ')
commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
echo "machine: $(nproc) cores of $cpu (${isa% }), commit $commit"
echo

for model in models/switch-mini models/qwen3-moe-mini "$folder/switch-S"; do
  "$bin/pregate-bench" benchmark --model "$model"
done | awk '/^model / && seen++ {next} {print; fflush()}'
echo

"$bin/grpc-overhead"
