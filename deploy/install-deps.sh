#!/usr/bin/env bash
# Installs everything that building and testing Pregate needs on Debian 12 or Ubuntu 24.04. Idempotent: what is there already is left
# alone. Runs as root or through sudo.
#
#   deploy/install-deps.sh            system packages, LibTorch, Rust, protobuf imports, test clients
#   deploy/install-deps.sh --cuda     that and the CUDA compiler, unless /usr/local/cuda has one
#
# What is not a system package goes to ${PREGATE_DEPS:-~/.cache/pregate/deps}, which CMake reads too.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
deps=${PREGATE_DEPS:-${XDG_CACHE_HOME:-$HOME/.cache}/pregate/deps}

cargo_minimum=1.82  # core/text/rust/Cargo.toml's rust-version

# LibTorch is the PyPI wheel itself; on a CPU it needs two small NVIDIA libraries beside it to load.
torch_wheels=(torch==2.11.0 nvidia-cuda-cupti==13.0.85 nvidia-cuda-runtime==13.0.96)
# The CUDA compiler and the headers it needs: no GPU, no driver and no toolkit is needed to compile and link.
cuda_wheels=(nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-cccl==13.0.85 nvidia-cuda-runtime==13.0.96)
proto_wheels=(googleapis-common-protos==1.70.0)
# Third-party clients that the integration tests drive the server with: versions that the Go 1.19 of Debian 12 builds.
go_clients=(github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.1 github.com/grpc-ecosystem/grpc-health-probe@v0.4.19)

say() { printf 'install-deps: %s\n' "$*"; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

install_packages() {
  local wanted missing=() p
  wanted=$(grep -vE '^\s*(#|$)' "$here/apt-packages.txt")
  command -v cargo >/dev/null || wanted+=" $(rust_packages)"
  for p in $wanted; do
    dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null | grep -qx installed || missing+=("$p")
  done
  if [ ${#missing[@]} = 0 ]; then say "system packages: all there"; return; fi
  say "system packages: ${missing[*]}"
  # The tests run Prometheus by themselves: its package is not to start a service that takes port 9090.
  if [[ " ${missing[*]} " == *" prometheus "* ]] && command -v systemctl >/dev/null; then as_root systemctl mask --quiet prometheus.service; fi
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# The newest Rust that the distribution has: the default one is too old for our crates on both.
rust_packages() {
  if apt-cache show cargo-web >/dev/null 2>&1; then echo "rustc-web cargo-web"; return; fi
  local newest
  newest=$(apt-cache search --names-only '^cargo-1\.[0-9]+$' | awk '{print $1}' | sort -V | tail -n 1)
  if [ -n "$newest" ]; then echo "$newest rustc-${newest#cargo-}"; else echo "cargo rustc"; fi
}

# A Rust that was here before is used as it is, so it must be new enough.
check_cargo() {
  local version
  version=$(cargo --version | awk '{print $2}')
  if [ "$(printf '%s\n' "$cargo_minimum" "$version" | sort -V | head -n 1)" != "$cargo_minimum" ]; then
    say "cargo $version is older than $cargo_minimum: update it (with rustup: 'rustup update'), or remove it and run this again"
    exit 1
  fi
  say "cargo: $version"
}

# wheels NAME REQUIREMENT...: unpacks wheels into $deps/NAME, once per set of requirements.
wheels() {
  local name=$1 stamp; shift
  stamp="$deps/$name/.installed"
  if [ "$(cat "$stamp" 2>/dev/null)" = "$*" ]; then say "$name: there ($*)"; return; fi
  say "$name: $* into $deps/$name"
  rm -rf "${deps:?}/$name"; mkdir -p "$deps"
  [ -x "$deps/venv/bin/pip" ] || python3 -m venv "$deps/venv"
  "$deps/venv/bin/pip" install -q --disable-pip-version-check --no-cache-dir --no-deps --no-compile --target "$deps/$name" "$@"
  echo "$*" >"$stamp"
}

# The wheels lack two names that CMake and the linker look for.
install_cuda() {
  if [ -x /usr/local/cuda/bin/nvcc ]; then say "cuda: /usr/local/cuda"; return; fi
  wheels cuda "${cuda_wheels[@]}"
  ln -sfn lib "$deps/cuda/nvidia/cu13/lib64"
  ln -sfn libcudart.so.13 "$deps/cuda/nvidia/cu13/lib/libcudart.so"
}

install_go_clients() {
  local client name
  mkdir -p "$deps/bin"
  for client in "${go_clients[@]}"; do
    name=$(basename "${client%@*}")
    if [ "$(cat "$deps/bin/.$name" 2>/dev/null)" = "$client" ]; then say "$name: there"; continue; fi
    say "$name: $client"
    if GOBIN="$deps/bin" GOFLAGS=-mod=mod go install "$client" 2>"$deps/bin/.$name.log"; then
      echo "$client" >"$deps/bin/.$name"
    else
      say "$name: skipped, $(go version) could not build it ($(tail -n 1 "$deps/bin/.$name.log")); the tests that need it say so"
    fi
  done
}

with_cuda=
for argument in "$@"; do
  case $argument in
    --cuda) with_cuda=1 ;;
    *) say "unknown argument '$argument': the only one is --cuda"; exit 2 ;;
  esac
done
[ "$(id -u)" = 0 ] || command -v sudo >/dev/null || { say "run this as root, or install sudo"; exit 1; }
if ! command -v apt-cache >/dev/null; then say "needs apt (Debian 12 or Ubuntu 24.04)"; exit 1; fi
[ -n "$(ls -A /var/lib/apt/lists 2>/dev/null)" ] || as_root apt-get update -qq
install_packages
check_cargo
wheels torch "${torch_wheels[@]}"
wheels protos "${proto_wheels[@]}"
[ -z "$with_cuda" ] || install_cuda
install_go_clients
say "done"
