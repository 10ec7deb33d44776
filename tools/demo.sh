#!/usr/bin/env bash
# The quick start, run: serves models/switch-mini with a quarter of its experts resident, streams its text, shows what the expert cache did
# and live metrics, stops the server, and compares the speculation modes on a paced link.  tools/demo.sh [BIN_FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${1:-build/release/bin}
log=$(mktemp)
pid=
finish() {
  if [ -n "$pid" ]; then kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; fi
  rm -f "$log"
}
trap finish EXIT

say() { if [ -t 1 ]; then printf '\n\033[1m%s\033[0m\n' "$*"; else printf '\n%s\n' "$*"; fi; }

offload=(--expert-capacity 25% --simulated-link "2GiB/s,10us")
say "\$ pregated --model models/switch-mini ${offload[*]}    (speculation: pregate, the default of a pre-gated model)"
# Port 0 lets the system choose, so that the demo never collides with a server that runs; the log says what it chose.
"$bin/pregated" --model models/switch-mini "${offload[@]}" --listen 127.0.0.1:0 --http-listen 127.0.0.1:0 2>"$log" &
pid=$!
address_of() { sed -nE "s/.* $1 listening .*address=([0-9.:]+).*/\1/p" "$log" | head -n 1; }
grpc='' http=''
for _ in $(seq 300); do
  grpc=$(address_of gRPC) http=$(address_of HTTP)
  [ -n "$grpc" ] && [ -n "$http" ] && break
  kill -0 "$pid" 2>/dev/null || { cat "$log"; exit 1; }
  sleep 0.1
done
[ -n "$grpc" ] && [ -n "$http" ] || { cat "$log"; echo "the server did not say where it listens"; exit 1; }
"$bin/pregate" --server "$grpc" --wait 60s health
"$bin/pregate" --server "$grpc" models

for prompt in "The Linux kernel is" "In the beginning" "To install the package, "; do
  say "\$ pregate generate --max-tokens 64 --seed 7 \"$prompt\""
  "$bin/pregate" --server "$grpc" generate --max-tokens 64 --seed 7 "$prompt"
done

say '$ pregate stats'
"$bin/pregate" --server "$grpc" stats

say "\$ curl http://$http/metrics    (a sample)"
curl -s "http://$http/metrics" |
  grep -E '^pregate_(requests_total.*Generate.*"OK"|generation_tokens_total|engine_steps_total|(time_to_first_token|inter_token_latency)_seconds_(sum|count)|expert_cache_(hits|late_hits|misses)_total|expert_prefetch_bytes_total|build_info)'

say '$ kill -TERM pregated'
kill -TERM "$pid"
rc=0; wait "$pid" || rc=$?
pid=
echo "pregated exited with $rc"
[ "$rc" -eq 0 ] || exit "$rc"

say '$ pregate-bench compare --model models/switch-mini --balance-link --iterations 3'
echo 'Every speculation mode beside the controls; the link takes as long for an expert as a layer for its computing.'
"$bin/pregate-bench" compare --model models/switch-mini --balance-link --iterations 3
