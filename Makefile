# Two commands on a fresh machine: `make demo` and `make test`. Each installs what is missing first.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test chaos build lint fmt bench docs clean

# The private copies of nats-server and MinIO; the tests also look there by name.
export RGRID_BIN_DIR := $(CURDIR)/.rgrid/bin
export PATH := $(RGRID_BIN_DIR):$(PATH)

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' Makefile

demo: ## start a grid on this machine and run a script on it
	@scripts/bootstrap demo
	@cargo build --release --locked -p rgrid
	@scripts/demo

test: ## build the binary and run every test, against real servers
	@scripts/bootstrap test
	@cargo build --locked -p rgrid
	@cargo test --workspace --locked

chaos: ## inject faults into a grid for twenty minutes and check every promise; CASE=sigkill runs one case; settings: target/release/chaos --help
	@scripts/bootstrap chaos
	@cargo build --release --locked -p rgrid -p grid-tests --bins
	@target/release/chaos $(CASE)

build: ## build target/release/rgrid
	@cargo build --release --locked -p rgrid

lint: ## check formatting, code, shell scripts and dependencies
	@scripts/bootstrap lint
	@cargo fmt --check
	@cargo clippy --workspace --all-targets --locked -- -D warnings
	@scripts/import-cycles
	@if type -P cargo-machete >/dev/null; then cargo machete; else echo 'lint: NOT CHECKED for unused dependencies: no cargo-machete here'; fi
	@if type -P cargo-deny >/dev/null; then cargo deny --log-level error --locked check bans licenses sources; \
		else echo 'lint: NOT CHECKED for licenses and bans of dependencies: no cargo-deny here'; fi
	@if type -P cargo-deny >/dev/null && [[ -d $${CARGO_HOME:-$$HOME/.cargo}/advisory-dbs ]]; then cargo deny --log-level error check --disable-fetch advisories; \
		else echo 'lint: NOT CHECKED for advisories: no database of them here; to get one: cargo deny fetch'; fi
	@if type -P shellcheck >/dev/null; then shellcheck .ci/run scripts/bootstrap scripts/demo scripts/failures; \
		else echo 'lint: no shellcheck here; apt-get install shellcheck'; fi

fmt: ## format the Rust code
	@cargo fmt

bench: build ## run the benchmarks on this machine, with a grid of their own
	@scripts/bootstrap demo
	@target/release/rgrid bench --embedded

docs: ## generate docs/events.md from the code
	@cargo build --locked -p rgrid
	@mkdir -p docs
	@target/debug/rgrid docs events >docs/events.md.new && mv docs/events.md.new docs/events.md

clean: ## remove build results; installed servers stay in .rgrid
	@cargo clean
	@rm -rf demo-out
