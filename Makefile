# The work is in `cargo xtask`; `cargo xtask help` lists its tasks and options.

CARGO ?= cargo

# Which of upstream's tests: netpol, network or conformance.
GROUP ?= netpol

.PHONY: help setup demo test bench cluster cluster-down e2e upstream clean

help:
	@echo "make demo          set up this machine, build, and show the main job"
	@echo "make cluster       start a Kubernetes cluster on this machine, with Weir installed"
	@echo "make cluster-down  end it"
	@echo "make test          set up this machine, and run every check and test"
	@echo "make e2e           set up this machine, and run the tests that only a cluster can show"
	@echo "make upstream      run Kubernetes' own tests in the cluster that runs: GROUP=netpol, network or conformance"
	@echo "make bench         set up this machine, build, and run the benchmarks"
	@echo "make setup         install what is missing here"
	@echo "make clean         remove what was built, and what an interrupted run left on this machine"

setup demo test bench e2e: .have-cargo
	+@$(CARGO) xtask $@

cluster: .have-cargo
	+@$(CARGO) xtask cluster up

cluster-down: .have-cargo
	+@$(CARGO) xtask cluster down

upstream: .have-cargo
	+@$(CARGO) xtask upstream $(GROUP)

clean: .have-cargo
	+@$(CARGO) xtask clean-up
	+@$(CARGO) clean

# What the tasks themselves are compiled with; all else is installed by them.
.PHONY: .have-cargo
.have-cargo: .have-linker
	@command -v $(CARGO) >/dev/null || { \
		echo "Weir is built with Rust, and there is no $(CARGO) on PATH. Install rustup (https://rustup.rs), with its"; \
		echo "stable toolchain, 1.95 or newer; or put cargo's folder, usually ~/.cargo/bin, on PATH."; \
		exit 1; \
	} >&2

.PHONY: .have-linker
.have-linker:
	@command -v cc >/dev/null || { \
		command -v apt-get >/dev/null || { echo "cargo links with cc, and there is none on PATH: install gcc" >&2; exit 1; }; \
		echo "installing packages: gcc libc6-dev"; \
		[ "$$(id -u)" = 0 ] || sudo=sudo; \
		$$sudo apt-get update -q && \
		$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends gcc libc6-dev; \
	}
