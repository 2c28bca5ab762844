# XOS. `make help` says what there is.

SHELL := /bin/bash
CARGO ?= cargo
DEMO_DIR ?= target/demo
export CARGO_TERM_PROGRESS_WHEN ?= auto
# What cargo keeps to build a crate again in parts takes a third of a build's room.
export CARGO_INCREMENTAL ?= 0

.PHONY: help deps deps-test deps-oidc deps-axe deps-scitokens deps-schemathesis deps-criu deps-vm \
	build release demo stop test test-full test-vm lint bench bench-grid bench-login bench-vo \
	bench-ssi fuzz clean

# As root, with FUSE and namespaces, whole grids can run: then a test of the testbed that skips
# itself fails.
XOS_NO_SKIP ?= $(shell [ "$$(id -u)" = 0 ] && [ -w /dev/fuse ] && unshare -mnpuiC --fork true \
	2>/dev/null && echo 1)
# The order of kills in the long suite; `make test-full XOS_SEED=...` repeats one.
ifndef XOS_SEED
XOS_SEED := $(shell od -An -N4 -tu4 /dev/urandom | tr -d ' ')
endif

help:
	@echo "make demo     install what is missing, build, start a two-site grid, run the example, move"
	@echo "              programs between nodes"
	@echo "make stop     end the grid and remove what it made"
	@echo "make test     everything that CI runs"
	@echo "make test-full   the long suites too"
	@echo "make test-vm  tests that need systemd and control groups v2, in a virtual machine with Debian 13;"
	@echo "              VM_RELEASE=bookworm: with Debian 12"
	@echo "make lint     formatting and lints only"
	@echo "make fuzz TARGET=signed SECONDS=60   random input for one decoder (fuzz/src/lib.rs; needs Rust nightly)"
	@echo "make bench    benchmarks (suites grid, login, vo and ssi), with tables and target/bench/*.json;"
	@echo "              make bench-grid, make bench-login, make bench-vo, make bench-ssi: one suite"

# Debian packages that running and building need, and those that only tests need.
RUN_PACKAGES := iproute2 util-linux fuse3 ca-certificates openssl
TEST_PACKAGES := chromium libnss3-tools python3-minimal python3-venv openssh-client openssh-server \
	pamtester softhsm2 sudo oidc-agent-cli curl jq krb5-kdc krb5-admin-server krb5-user busybox-static cron \
	default-jdk-headless r-base-core
# The suite login also runs what these hold, beside ours.
BENCH_PACKAGES := libnss-extrausers openssh-client openssh-server pamtester
# The suite vo signs in to the console and to nodes, and asks a directory beside ours.
BENCH_VO_PACKAGES := curl procps openssh-client openssh-server slapd ldap-utils
# The suite ssi builds a program, and starts others by ssh beside.
BENCH_SSI_PACKAGES := make gcc openssh-client openssh-server
VM_PACKAGES := qemu-system-x86 mmdebstrap debian-archive-keyring e2fsprogs python3-minimal
# The machine inside has what running needs, and no more than systemd, a kernel and what tests call.
VM_RELEASE ?= trixie
VM_GUEST_PACKAGES := systemd-sysv dbus libpam-systemd linux-image-cloud-amd64 procps python3 binutils cron \
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

# Looks the console's pages over for what keeps people out. Where npm is missing, the test of that
# says why it is skipped.
AXE_DIR := target/axe
deps-axe:
	@if ! command -v npm >/dev/null; then \
		echo "no npm: the console's pages will not be looked over by axe-core"; \
	elif ! [ $(AXE_DIR)/node_modules/.package-lock.json -nt tools/axe/package-lock.json ]; then \
		mkdir -p $(AXE_DIR) && cp tools/axe/package.json tools/axe/package-lock.json $(AXE_DIR) && \
		npm ci --prefix $(AXE_DIR) --no-audit --no-fund --loglevel error; \
	fi

# A library that services outside check tokens with, for tests of credentials. The hosts of the
# testbed have Debian's Python.
SCITOKENS_DIR := target/scitokens
deps-scitokens:
	@tools/deps python3-venv
	@if ! [ $(SCITOKENS_DIR)/made -nt tools/scitokens/requirements.txt ]; then \
		rm -rf $(SCITOKENS_DIR) && /usr/bin/python3 -m venv $(SCITOKENS_DIR) && \
		$(SCITOKENS_DIR)/bin/pip install --quiet --disable-pip-version-check --require-hashes \
			--only-binary :all: --requirement tools/scitokens/requirements.txt && \
		touch $(SCITOKENS_DIR)/made; \
	fi

# Tries the API by the document that it gives of itself.
SCHEMATHESIS_DIR := target/schemathesis
deps-schemathesis:
	@tools/deps python3-venv
	@if ! [ $(SCHEMATHESIS_DIR)/made -nt tools/schemathesis/requirements.txt ]; then \
		rm -rf $(SCHEMATHESIS_DIR) && /usr/bin/python3 -m venv $(SCHEMATHESIS_DIR) && \
		$(SCHEMATHESIS_DIR)/bin/pip install --quiet --disable-pip-version-check --require-hashes \
			--only-binary :all: --requirement tools/schemathesis/requirements.txt && \
		touch $(SCHEMATHESIS_DIR)/made; \
	fi

# What moves programs between nodes of a cluster, and saves them.
CRIU_DIR := target/criu
deps-criu:
	@tools/deps-criu $(CRIU_DIR)

deps-test: deps deps-oidc deps-axe deps-scitokens deps-schemathesis deps-criu
	@tools/deps $(TEST_PACKAGES)
	@command -v cargo-nextest >/dev/null || $(CARGO) install --locked cargo-nextest

deps-vm: deps
	@tools/deps $(VM_PACKAGES)
	@command -v cargo-nextest >/dev/null || $(CARGO) install --locked cargo-nextest

build:
	$(CARGO) build --workspace --bins --lib

release:
	$(CARGO) build --workspace --bins --lib --release

demo: deps deps-criu release
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

# The long suites too: seeded kills over a whole grid, and of what moves programs in a cluster
# (XOS_KILLS, XOS_CLUSTER_KILLS, XOS_SEED).
test-full: test
	@echo "the order of kills: XOS_SEED=$(XOS_SEED)"
	XOS_NO_SKIP=$(XOS_NO_SKIP) XOS_SEED=$(XOS_SEED) XOS_KILLS=$${XOS_KILLS:-200} \
		XOS_CLUSTER_KILLS=$${XOS_CLUSTER_KILLS:-100} \
		tools/reported full $(CARGO) nextest run --profile full --workspace \
		-E 'binary(grid) & test(kills)'

# Where this machine cannot run XOS, a virtual one can: see tools/vm/test.
test-vm: deps-vm
	tools/vm/test $(VM_RELEASE) $(VM_GUEST_PACKAGES)

bench: bench-grid bench-login bench-vo bench-ssi

bench-grid: deps release
	target/release/xos-bench grid --out target/bench/grid.json

bench-login: deps release
	@tools/deps $(BENCH_PACKAGES)
	target/release/xos-bench login --out target/bench/login.json

bench-vo: deps release
	@tools/deps $(BENCH_VO_PACKAGES)
	$(CARGO) build --release -p xos-vom --example vo_rates
	target/release/xos-bench vo --out target/bench/vo.json

bench-ssi: deps release deps-criu
	@tools/deps $(BENCH_SSI_PACKAGES)
	target/release/xos-bench ssi --out target/bench/ssi.json

# What it finds lies in target/fuzz. What is worth keeping belongs into fuzz/corpus/TARGET, which
# every run of the tests tries again. The versions are those that are shipped.
TARGET ?= membership
SECONDS ?= 60
fuzz:
	@command -v cargo-fuzz >/dev/null || $(CARGO) install --locked cargo-fuzz
	@mkdir -p target/fuzz/found/$(TARGET) && cp Cargo.lock fuzz/Cargo.lock
	cargo +nightly fuzz run --fuzz-dir fuzz --target-dir target/fuzz $(TARGET) \
		target/fuzz/found/$(TARGET) fuzz/corpus/$(TARGET) \
		-- -max_total_time=$(SECONDS) -artifact_prefix=$(CURDIR)/target/fuzz/

clean: stop
	$(CARGO) clean
