# Two commands on a fresh machine: `make demo` and `make test`. Each installs what is missing first.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test chaos build lint fmt bench docs clean

# The private copies of nats-server and MinIO; the tests also look there by name.
export RGRID_BIN_DIR := $(CURDIR)/.rgrid/bin
export PATH := $(RGRID_BIN_DIR):$(PATH)

help: ## say what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' Makefile

demo: ## start a grid on this machine and run a script on it
	@scripts/bootstrap demo
	@cargo build --release --locked -p rgrid
	@scripts/demo

test: ## run every test, against real servers and the binary as it is built
	@scripts/bootstrap test
	@cargo build --locked -p rgrid
	@cargo test --workspace --locked

chaos: ## harm a grid for twenty minutes and check every promise; CASE=sigkill for one case, knobs: target/release/chaos --help
	@scripts/bootstrap chaos
	@cargo build --release --locked -p rgrid -p grid-tests --bins
	@target/release/chaos $(CASE)

build: ## build target/release/rgrid
	@cargo build --release --locked -p rgrid

lint: ## check formatting, Rust and shell
	@cargo fmt --check
	@cargo clippy --workspace --all-targets --locked -- -D warnings
	@if type -P shellcheck >/dev/null; then shellcheck .ci/run scripts/bootstrap scripts/demo scripts/failures; else echo 'lint: no shellcheck here; apt-get install shellcheck'; fi

fmt: ## format the Rust code
	@cargo fmt

bench: build ## measure this machine with a grid of its own
	@scripts/bootstrap demo
	@target/release/rgrid bench --embedded

docs: ## write docs/events.md from the code
	@cargo build --locked -p rgrid
	@mkdir -p docs
	@target/debug/rgrid docs events >docs/events.md.new && mv docs/events.md.new docs/events.md

clean: ## remove what was built; installed servers stay in .rgrid
	@cargo clean
	@rm -rf demo-out
