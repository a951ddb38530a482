# The work is in `cargo xtask`; `cargo xtask help` lists its tasks and options.

CARGO ?= cargo

.PHONY: help setup demo test bench clean

help:
	@echo "make demo    set up this machine, build, and show the main job"
	@echo "make test    set up this machine, and run every check and test"
	@echo "make bench   set up this machine, build, and run the benchmarks"
	@echo "make setup   install what is missing here"
	@echo "make clean   remove what was built, and what an interrupted run left on this machine"

setup demo test bench: .have-cargo
	+@$(CARGO) xtask $@

clean: .have-cargo
	+@$(CARGO) xtask clean-up
	+@$(CARGO) clean

.PHONY: .have-cargo
.have-cargo:
	@command -v $(CARGO) >/dev/null || { \
		echo "Weir is built with Rust, and there is no $(CARGO) on PATH. Install rustup (https://rustup.rs), with its"; \
		echo "stable toolchain, 1.95 or newer; or put cargo's folder, usually ~/.cargo/bin, on PATH."; \
		exit 1; \
	} >&2
