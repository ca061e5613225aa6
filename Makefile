# The whole daily life. `demo` and `test` also install what is missing, where they may (see scripts/prerequisites).
.PHONY: demo test unit torture examples check kafka up down bless docs bench build-prerequisites kafka-prerequisites test-prerequisites examples-prerequisites
CARGO ?= cargo
# Where cargo puts what it builds.
BUILT = $(or $(CARGO_TARGET_DIR),target)/debug

# The whole pipeline in one process, against a simulated organization: no account, no Kafka, no Docker.
demo: build-prerequisites
	@$(CARGO) build -p windfall
	@$(BUILT)/windfall demo $(ARGS)

# All tests, against real Apache Kafka, PostgreSQL and a schema registry, which are started for the run.
test: test-prerequisites
	$(CARGO) build -p windfall-services
	$(BUILT)/windfall-services with $(CARGO) test --workspace --no-fail-fast $(ARGS)

# The tests that need no service, in a minute: units, scenarios, laws, golden bytes, the simulator, the command line, the pages.
UNIT = agreement:: assets:: codec:: compatibility:: fingerprints:: golden:: hostile:: lint:: names:: partitions:: round_trip:: values:: \
  apple:: scenarios:: laws:: steps:: decisions:: shipped:: sqlite:: \
  control:: determinism:: faults:: journal:: listing:: rate_limit:: shapes:: sim:: single_reads:: token:: \
  config:: reference:: usage:: tidy:: pages:: compose::
unit: build-prerequisites
	$(CARGO) test --workspace --lib --quiet
	$(CARGO) test --workspace --test main --quiet -- $(UNIT)

# Runs what README.md and docs/topics.md show to consumers (Python, Java, Flink SQL, SQL), against services of its own.
examples: examples-prerequisites
	$(CARGO) build -p windfall -p windfall-services
	env -u WINDFALL_TEST_KAFKA -u WINDFALL_TEST_POSTGRES WINDFALL_TEST_REGISTRY=none $(BUILT)/windfall-services with scripts/examples

# Random runs with several processes a stage, judged by the laws: make torture SEEDS=300 [FIRST=1] [JOBS=2]
torture: test-prerequisites
	$(CARGO) build -p windfall-services
	WINDFALL_TORTURE_SEEDS=$(or $(SEEDS),20) WINDFALL_TORTURE_FIRST=$(or $(FIRST),1) WINDFALL_TORTURE_JOBS=$(or $(JOBS),2) \
	  $(BUILT)/windfall-services with $(CARGO) test -p windfall-tests --test main -- --nocapture --exact torture::the_laws_hold_in_random_runs_with_several_processes_a_stage

# Format, lints, documentation, dependencies: all warnings are errors.
check: build-prerequisites
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items --quiet
	@if command -v cargo-deny >/dev/null; then cargo deny --log-level error check bans licenses sources; else echo "skipped: cargo deny is not installed"; fi
	@if command -v cargo-machete >/dev/null; then cargo machete; else echo "skipped: cargo machete is not installed"; fi

# A real local Kafka that stays until Ctrl-C; then: windfall run all -c examples/local.yaml
kafka: kafka-prerequisites
	$(CARGO) build -p windfall-services
	$(BUILT)/windfall-services kafka $(ARGS)

# The same with containers.
up:
	docker compose up -d --build --wait
down:
	docker compose down

# Rewrites what is generated or recorded: configuration reference, golden files, snapshots.
bless: test-prerequisites
	$(CARGO) build -p windfall-services
	WINDFALL_BLESS=1 INSTA_UPDATE=always $(BUILT)/windfall-services with $(CARGO) test --workspace
docs: build-prerequisites
	$(CARGO) doc --workspace --no-deps --open

bench: test-prerequisites
	$(CARGO) build -p windfall-services
	$(BUILT)/windfall-services with $(CARGO) bench -p windfall-producer -p windfall-transformer -p windfall-sink

build-prerequisites:
	@scripts/prerequisites build
kafka-prerequisites:
	@scripts/prerequisites kafka
test-prerequisites:
	@scripts/prerequisites test
examples-prerequisites:
	@scripts/prerequisites examples
