# The verbs of this project. `make` alone lists them.
JOBS ?= $(shell nproc)
export CCACHE_BASEDIR = $(CURDIR)
export CCACHE_NOHASHDIR = 1
export CTEST_PARALLEL_LEVEL ?= $(JOBS)

.DEFAULT_GOAL := help
.PHONY: help setup build cuda demo test test-gpu check asan tsan fuzz matrix bench format docs pictures clean

help: ## List the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build/.setup: deploy/install-deps.sh deploy/apt-packages.txt
	deploy/install-deps.sh
	@mkdir -p build && touch $@

setup: build/.setup ## Install what building and testing need (Debian 12, Ubuntu 24.04)

build: setup ## Build the programs into build/release/bin
	cmake --preset release -DPREGATE_TESTS=OFF $(if $(wildcard build/release/CMakeCache.txt),>/dev/null)
	cmake --build --preset release -j $(JOBS)

build/.setup-cuda: deploy/install-deps.sh deploy/apt-packages.txt
	deploy/install-deps.sh --cuda
	@mkdir -p build && touch $@

cuda: build/.setup-cuda ## Build the programs for NVIDIA GPUs, which needs none, into build/cuda/bin
	cmake --preset cuda $(if $(wildcard build/cuda/CMakeCache.txt),>/dev/null)
	cmake --build --preset cuda -j $(JOBS) --target pregated pregate pregate-bench pregate-model pregate-gpu-bench

test-gpu: build/.setup-cuda ## The tests that need a GPU (without one each is skipped)
	cmake --preset cuda $(if $(wildcard build/cuda/CMakeCache.txt),>/dev/null)
	cmake --build --preset cuda -j $(JOBS) --target gpu_test gpu_kernel_test gpu_model_test
	ctest --preset cuda -L gpu

demo: build ## Serve models/switch-mini and stream its text over gRPC
	tools/demo.sh build/release/bin

test: setup ## Build everything and run all tests
	tests/run.sh dev

asan: setup ## The tests under AddressSanitizer and UndefinedBehaviorSanitizer
	tests/run.sh asan

tsan: setup ## The tests without LibTorch under ThreadSanitizer
	tests/run.sh tsan

FUZZ_SECONDS ?= 60
fuzz: setup ## libFuzzer on everything that reads what others wrote, FUZZ_SECONDS=60 a target
	cmake --preset fuzz $(if $(wildcard build/fuzz/CMakeCache.txt),>/dev/null)
	cmake --build --preset fuzz --target fuzz -j $(JOBS)
	FUZZ_SECONDS=$(FUZZ_SECONDS) tests/fuzz/run.py build/fuzz $(FUZZ_TARGETS)

matrix: setup ## Residency x mode x strategy x link, 200 prompts, both models: the same bits (an hour)
	PREGATE_MATRIX=full tests/run.sh dev -R offload_matrix_test --timeout 86400

check: setup ## Format, clang-tidy, layers, links, shell scripts
	tests/lint/run.sh

bench: build ## Tokens per second beside their bound, for both models and a random Switch
	bench/run.sh build/release/bin

format: ## Rewrite the C++ files in the project's format
	git ls-files '*.h' '*.cc' | xargs clang-format-14 -i

docs: build ## Write what is generated anew: the tables of docs/metrics.md, the dashboards
	tools/monitoring/metrics_table.py build/release/bin
	tools/monitoring/dashboards.py

pictures: build ## Draw both dashboards anew, from a minute of a server under load
	@[ -x build/pictures-venv/bin/python ] || python3 -m venv build/pictures-venv
	build/pictures-venv/bin/pip install -q --disable-pip-version-check -r tools/monitoring/requirements.txt
	build/pictures-venv/bin/python tools/monitoring/pictures.py build/release/bin

clean: ## Remove what was built
	rm -rf build
