# The few commands of this project; `make help` lists them. Needs a Rust toolchain, a C compiler and make.

CARGO ?= cargo
WASM := wasm32-unknown-unknown
TARGET := $(or $(CARGO_TARGET_DIR),target)

.DEFAULT_GOAL := help
.PHONY: help lint test demo plugins acceptance bench chaos wasm-target

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

lint: ## Format, clippy, licences and advisories (cargo-deny where it is installed)
	$(CARGO) fmt --all --check
	$(CARGO) lint
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny --all-features check; \
	else echo "cargo-deny is not installed, so licences and advisories were not checked: cargo install --locked cargo-deny"; fi

test: wasm-target ## Run every test; starts a PostgreSQL and a Kafka of its own
	$(CARGO) test --workspace --locked --features tolk/faults

bench: wasm-target ## Measure the flow beside its ceilings on this machine; writes target/bench.json
	$(CARGO) bench --bench bench --locked

chaos: wasm-target ## The fault suite in full; KILLS=3000 for a release, SEED=n plays a run again, ONLY=F11,P02 chooses
	KILLS='$(or $(KILLS),1000)' SEED='$(SEED)' ONLY='$(ONLY)' FULL=1 $(CARGO) test --quiet --locked --features tolk/faults --test chaos

# What plugins are compiled for. Toolchains without rustup bring their own targets.
wasm-target:
	@if command -v rustup >/dev/null 2>&1 && ! rustup target list --installed | grep -qx $(WASM); then rustup target add $(WASM); fi

ARENA := gjennomforing deltaker hist-deltaker
PLUGINS := $(addprefix arena/,$(ARENA)) barnetrygd/mottaker

# The translators of real systems as components, below target/tolk.
plugins: wasm-target
	$(CARGO) build --release --locked
	@for plugin in $(PLUGINS); do $(TARGET)/release/tolk build plugins/$$plugin || exit $$?; done

demo: plugins ## The main job on this machine alone, with a Kafka in the process; FOLLOW=1 goes on until Ctrl-C
	$(TARGET)/release/tolk demo $(if $(FOLLOW),--follow) $(foreach plugin,$(ARENA),$(TARGET)/tolk/arena-$(plugin).wasm)

acceptance: wasm-target ## Play the case files below CASES=dir against the built components; STORE=sqlite or postgres
	CASES='$(if $(CASES),$(abspath $(CASES)))' STORE='$(STORE)' $(CARGO) test --quiet --locked --features tolk/faults --test acceptance
