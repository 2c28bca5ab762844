# XOS. `make help` says what there is.

SHELL := /bin/bash
CARGO ?= cargo
DEMO_DIR ?= target/demo
export CARGO_TERM_PROGRESS_WHEN ?= auto

.PHONY: help deps deps-test deps-oidc deps-vm build release demo stop test test-full test-vm lint bench bench-grid \
	clean

# As root, with FUSE and namespaces, whole grids can run: then a test of the testbed that skips
# itself fails.
XOS_NO_SKIP ?= $(shell [ "$$(id -u)" = 0 ] && [ -w /dev/fuse ] && unshare -mnpuiC --fork true \
	2>/dev/null && echo 1)
# The order of kills in the long suite; `make test-full XOS_SEED=...` repeats one.
ifndef XOS_SEED
XOS_SEED := $(shell od -An -N4 -tu4 /dev/urandom | tr -d ' ')
endif

help:
	@echo "make demo     install what is missing, build, start a two-site grid, run the example"
	@echo "make stop     end the grid and remove what it made"
	@echo "make test     everything that CI runs"
	@echo "make test-full   the long suites too"
	@echo "make test-vm  tests that need systemd and control groups v2, in a virtual machine with Debian 13;"
	@echo "              VM_RELEASE=bookworm: with Debian 12"
	@echo "make lint     formatting and lints only"
	@echo "make bench    benchmarks (suite grid), with a table and target/bench/grid.json"

# Debian packages that running and building need, and those that only tests need.
RUN_PACKAGES := iproute2 util-linux fuse3 ca-certificates openssl
TEST_PACKAGES := chromium libnss3-tools python3-minimal openssh-client openssh-server pamtester softhsm2 sudo
VM_PACKAGES := qemu-system-x86 mmdebstrap debian-archive-keyring e2fsprogs python3-minimal
# The machine inside has what running needs, and no more than systemd, a kernel and what tests call.
VM_RELEASE ?= trixie
VM_GUEST_PACKAGES := systemd-sysv dbus linux-image-cloud-amd64 procps python3-minimal binutils \
	openssh-client openssh-server pamtester sudo $(RUN_PACKAGES)

deps:
	@tools/deps $(RUN_PACKAGES)

# The OpenID provider for tests of signing in. Where npm is missing, they say why they are skipped.
OIDC_DIR := target/oidc-provider
deps-oidc:
	@if ! command -v npm >/dev/null; then \
		echo "no npm: tests with a real OpenID provider will be skipped"; \
	elif ! [ $(OIDC_DIR)/node_modules/.package-lock.json -nt tools/oidc-provider/package-lock.json ]; then \
		mkdir -p $(OIDC_DIR) && \
		cp tools/oidc-provider/package.json tools/oidc-provider/package-lock.json $(OIDC_DIR) && \
		npm ci --prefix $(OIDC_DIR) --no-audit --no-fund --loglevel error; \
	fi

deps-test: deps deps-oidc
	@tools/deps $(TEST_PACKAGES)
	@command -v cargo-nextest >/dev/null || $(CARGO) install --locked cargo-nextest

deps-vm: deps
	@tools/deps $(VM_PACKAGES)
	@command -v cargo-nextest >/dev/null || $(CARGO) install --locked cargo-nextest

build:
	$(CARGO) build --workspace --bins --lib

release:
	$(CARGO) build --workspace --bins --lib --release

demo: deps release
	target/release/xos-demo start --dir $(DEMO_DIR)

# What still runs after its folder was removed is found by its control groups.
stop:
	@if [ -x target/release/xos-demo ]; then target/release/xos-demo stop --dir $(DEMO_DIR); \
	elif compgen -G "/sys/fs/cgroup/xos-testbed-xos-*" || \
		compgen -G "/sys/fs/cgroup/*/xos-testbed-xos-*"; then \
		$(CARGO) build --workspace --bins --lib --release && \
		target/release/xos-demo stop --dir $(DEMO_DIR); \
	else echo "No grid runs here."; fi

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

test: deps-test lint
	$(CARGO) build --workspace --all-targets
	XOS_NO_SKIP=$(XOS_NO_SKIP) tools/reported default $(CARGO) nextest run --workspace --no-fail-fast

# The long suites too: seeded kills over a whole grid (XOS_KILLS, XOS_SEED).
test-full: test
	@echo "the order of kills: XOS_SEED=$(XOS_SEED)"
	XOS_NO_SKIP=$(XOS_NO_SKIP) XOS_SEED=$(XOS_SEED) XOS_KILLS=$${XOS_KILLS:-200} \
		tools/reported full $(CARGO) nextest run --profile full --workspace \
		-E 'binary(grid) & test(kills)'

# Where this machine cannot run XOS, a virtual one can: see tools/vm/test.
test-vm: deps-vm
	tools/vm/test $(VM_RELEASE) $(VM_GUEST_PACKAGES)

bench: bench-grid

bench-grid: deps release
	target/release/xos-bench grid --out target/bench/grid.json

clean: stop
	$(CARGO) clean
