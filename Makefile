# `make` alone lists the targets. CI calls the same ones (.ci/run).
# Options: CARGO_FLAGS for cargo, LOCAL for the folder of `make run`.

CARGO ?= cargo
LOCAL ?= .local
READY ?= $(LOCAL)/ready.json
CARGO_TARGET_DIR ?= target
ALDIS = $(abspath $(CARGO_TARGET_DIR))
# The same features and members in every target: a selection would give dependencies other features and build them again.
ALL = --workspace --all-features
# The binary, as the tests of the program build it: `cargo build` would leave out what only tests need, and so build again.
BUILD = $(CARGO) test $(CARGO_FLAGS) $(ALL) --no-run --test local
# Without samples there is nothing to compare with, and without a CQL server nothing to ask.
NO_SAMPLES = -- --skip golden --skip on_cql
# Where tests of whole backends note which routes they ask.
NOTES = $(ALDIS)/asked
FUZZ_SECONDS ?= 60
SCHEMATHESIS_SECONDS ?= 180
# Seeds of the simulation: `make test` takes the first 200.
SIM_SEEDS ?= 2000
SIM_FIRST ?= 1
CRASH_SECONDS ?= 90
CRASH_SEED ?= 1
CRASH_BACKENDS ?= 2
# Where pictures of the web client go.
SCREENSHOTS ?= $(ALDIS)/screenshots
# Milliseconds between two messages of a sender.
CRASH_PACE ?= 400
# Starts a command line with a Node of version 20 or later, which is fetched when the machine has none.
WITH_NODE = PATH="$$(scripts/node.sh):$$PATH" &&
WITH ?= ben@beta.test
ME ?= ann@alpha.test

.DEFAULT_GOAL := help
.PHONY: help run web chat clean-local test test-unit test-it test-client test-status test-web test-schemathesis test-golden test-s3 test-scylla test-turn test-chart simulate test-crash fuzz check docs docs-api structure fmt deny bench bench-parts

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## build and run two federated backends on this machine; prints a guide
	@scripts/web.sh if-node
	$(BUILD)
	@exec $(ALDIS)/debug/aldis local up --dir '$(LOCAL)' --ready-file '$(READY)'

web: ## build the web client, which the next build of the binary takes in (needs Node 20 or later, or fetches one)
	@scripts/web.sh

chat: tests/client/node_modules/.complete ## write messages in the terminal: ME=ann@alpha.test WITH=ben@beta.test (while `make run` runs)
	@$(WITH_NODE) exec node tests/client/src/chat.js --ready '$(abspath $(READY))' --me '$(ME)' --with '$(WITH)'

clean-local: ## remove the backends of `make run` and all their data
	@$(BUILD) -q
	@exec $(ALDIS)/debug/aldis local clean --dir '$(LOCAL)'

test: ## all tests that need nothing but Rust and a C compiler
	@rm -rf '$(NOTES)'
	ALDIS_COVERAGE='$(NOTES)' $(CARGO) test $(CARGO_FLAGS) $(ALL) $(NO_SAMPLES)
	scripts/check-coverage.sh '$(NOTES)'

test-unit: ## rules and stores only
	$(CARGO) test $(CARGO_FLAGS) $(ALL) --exclude aldis-it $(NO_SAMPLES)

test-it: ## whole backends only
	$(CARGO) test $(CARGO_FLAGS) $(ALL) --test it

docs-api: ## write docs/client-api.md anew, with the tests that ask each route
	@rm -rf '$(NOTES)'
	ALDIS_COVERAGE='$(NOTES)' $(CARGO) test $(CARGO_FLAGS) $(ALL) --test it -- --skip documentation:: --skip golden --skip on_cql
	ALDIS_WRITE_CLIENT_API='$(NOTES)' $(CARGO) test $(CARGO_FLAGS) $(ALL) --test it -- documentation::

tests/client/node_modules/.complete: tests/client/package.json tests/client/package-lock.json
	scripts/npm-ci.sh tests/client

test-client: tests/client/node_modules/.complete ## the real JavaScript client against two backends
	$(BUILD)
	$(WITH_NODE) cd tests/client && ALDIS_BIN=$(ALDIS)/debug/aldis npm test

crates/web/app/node_modules/.complete: crates/web/app/package.json crates/web/app/package-lock.json
	scripts/npm-ci.sh crates/web/app

.PHONY: test-app
test-app: crates/web/app/node_modules/.complete ## the web client's types, lints and rules, without a browser
	$(WITH_NODE) cd crates/web/app && npm run --silent check && NO_COLOR=1 npm run --silent test

tests/browser/node_modules/.complete: tests/browser/package.json tests/browser/package-lock.json
	scripts/npm-ci.sh tests/browser

test-status: tests/browser/node_modules/.complete ## the status page in a real browser (Chromium)
	$(BUILD)
	$(WITH_NODE) browser="$$(scripts/chromium.sh)" && cd tests/browser && \
		CHROMIUM="$$browser" ALDIS_BIN=$(ALDIS)/debug/aldis npm test

test-web: tests/browser/node_modules/.complete web ## the web client in Chromium between two backends; SCREENSHOTS=folder
	$(BUILD)
	$(WITH_NODE) browser="$$(scripts/chromium.sh)" && cd tests/browser && \
		CHROMIUM="$$browser" ALDIS_BIN=$(ALDIS)/debug/aldis SCREENSHOTS='$(SCREENSHOTS)' npm run --silent test:web

test-s3: ## files in an object store: one of our own, or the one that ALDIS_TEST_S3_ENDPOINT names
	$(CARGO) test $(CARGO_FLAGS) $(ALL) --lib -- tests::s3

test-scylla: ## stores on a cluster: a Cassandra node (Debian's Java 17 and Maven fetch it), or the server that ALDIS_TEST_CQL names
	$(CARGO) test $(CARGO_FLAGS) $(ALL) --no-run --lib
	scripts/cassandra.sh $(CARGO) test $(CARGO_FLAGS) $(ALL) --lib -- on_cql

test-schemathesis: ## requests made up from openapi.json against two backends: SCHEMATHESIS_SECONDS=180
	$(BUILD)
	python="$$(scripts/venv.sh schemathesis tests/schemathesis/requirements.txt)/python" && \
		"$$python" tests/schemathesis/run.py --binary $(ALDIS)/debug/aldis --seconds $(SCHEMATHESIS_SECONDS)

fuzz: ## search longer for input from outside that is read wrongly: FUZZ_SECONDS=60 for each target
	BOLERO_RANDOM_TEST_TIME_MS=$$(($(FUZZ_SECONDS) * 1000)) BOLERO_RANDOM_ITERATIONS=1000000000 \
		$(CARGO) test $(CARGO_FLAGS) $(ALL) --exclude aldis-it --lib -- fuzz:: --test-threads=2

test-turn: ## credentials for calls against real TURN servers (Debian's coturn)
	scripts/debian.sh turnserver coturn
	$(BUILD)
	ALDIS_BIN=$(ALDIS)/debug/aldis "$$(scripts/venv.sh turn tests/turn/requirements.txt)/python" tests/turn/test_turn.py

test-chart: ## the Helm chart and the Dockerfile, without a cluster (Helm as a library, the schemas of Kubernetes)
	$(BUILD)
	ALDIS_BIN=$(ALDIS)/debug/aldis "$$(scripts/venv.sh chart tests/chart/requirements.txt)/python" -B -m unittest discover -s tests/chart

simulate: ## delivery in simulated time, on a simulated network: SIM_SEEDS=2000 SIM_FIRST=1
	$(CARGO) test $(CARGO_FLAGS) $(ALL) --no-run --test seeds
	$(ALDIS)/debug/aldis-simulation --seeds $(SIM_SEEDS) --first $(SIM_FIRST) --keep-going

test-crash: ## backends that fail while people write: CRASH_SECONDS=90 CRASH_SEED=1 CRASH_BACKENDS=2 (or 3) CRASH_PACE=400
	$(CARGO) test $(CARGO_FLAGS) $(ALL) --no-run --test local --test plan
	ALDIS_BIN=$(ALDIS)/debug/aldis $(ALDIS)/debug/aldis-crash --seconds $(CRASH_SECONDS) --seed $(CRASH_SEED) \
		--backends $(CRASH_BACKENDS) --pace $(CRASH_PACE) --json $(ALDIS)/crash.json --logs $(ALDIS)/crash.log

test-golden: ## our types against golden JSON: GOLDEN=folder with golden/ and golden-federation/
	@test -d '$(GOLDEN)/golden' || { echo 'GOLDEN names the folder with golden/ and golden-federation/' >&2; exit 2; }
	ALDIS_GOLDEN='$(abspath $(GOLDEN))' CARGO='$(CARGO)' scripts/test-golden.sh $(CARGO_FLAGS)

check: structure ## formatting, lints as errors, structure rules
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(CARGO_FLAGS) $(ALL) --all-targets -- -D warnings

docs: ## write the reference of settings in docs/configuration.md anew, from the code's doc comments
	ALDIS_WRITE_DOCS=1 $(CARGO) test $(CARGO_FLAGS) $(ALL) --lib the_reference_in_the_documentation

structure: ## who may depend on whom
	scripts/check-structure.sh

fmt: ## format the code
	$(CARGO) fmt --all

deny: ## licenses and sources of dependencies (needs cargo-deny)
	$(CARGO) deny check bans licenses sources

bench: ## measure a federation from outside; rewrites the table in docs/performance.md
	$(CARGO) build --release $(CARGO_FLAGS) -p aldis -p aldis-bench
	$(ALDIS)/release/aldis-bench --binary $(ALDIS)/release/aldis --json $(ALDIS)/bench.json --table docs/performance.md

bench-parts: ## measure the parts of a message's way
	$(CARGO) bench $(CARGO_FLAGS) -p aldis-bench
