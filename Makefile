# Every go command needs these build tags: DuckDB's Arrow interface is behind one.
TAGS := duckdb_arrow

GO       ?= go
BIN      := bin
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X github.com/frazil-io/frazil/internal/cli.Version=$(VERSION)
LINT_VERSION := v2.12.2
LINT     := .cache/golangci-lint-$(LINT_VERSION)
SEEDS    ?= 10000
SOAK     ?= 1h
SIM_TIMEOUT ?= 120m
FUZZTIME ?= 1m

export GOFLAGS += -tags=$(TAGS)
export CGO_ENABLED = 1

.DEFAULT_GOAL := help
.PHONY: help demo build image test integration bench soak lint fmt fmt-check spec-page sim faults fuzz compiler

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | sort | awk -F'\t' '{printf "  %-12s %s\n", $$1, $$2}'

compiler:
	@out=$$(mktemp) && cc=$${CC:-$$(command -v cc || command -v gcc || echo cc)} && trap 'rm -f "$$out"' EXIT && \
	if ! echo 'int main(void) { return 0; }' | $$cc -x c - -o "$$out" -lstdc++ 2>/dev/null && ! echo 'int main(void) { return 0; }' | $$cc -x c - -o "$$out" -lc++ 2>/dev/null; then \
		echo "frazil embeds DuckDB: building it needs a C compiler with the C++ library, and $$cc is none; install gcc and g++, or clang, or set CC" >&2; exit 1; \
	fi

build: compiler ## build bin/frazil
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/frazil ./cmd/frazil

image: ## build the container image frazil:VERSION; BUILD_IMAGE and RUNTIME_IMAGE choose its bases
	docker build -f deploy/Dockerfile $(foreach a,BUILD_IMAGE RUNTIME_IMAGE,$(if $($a),--build-arg $a=$($a))) --build-arg VERSION=$(VERSION) $(DOCKER_BUILD_FLAGS) -t frazil:$(VERSION) -t frazil:latest .

demo: build ## run the etl example with everything embedded, and show its table
	$(BIN)/frazil demo etl

test: compiler ## all tests that need Go and a C compiler only
	$(GO) test ./...

integration: build ## real Kafka, S3 and REST catalog, kills, independent readers
	$(GO) test -tags=$(TAGS),integration -count=1 -timeout 25m -v ./test/integration/...

sim: ## the protocol's simulation, SEEDS runs of each kind (10000)
	$(GO) test -count=1 -timeout $(SIM_TIMEOUT) ./internal/driver -run Simulation -v -args -seeds $(SEEDS) -pairs

faults: ## break the protocol one rule at a time; the tests must catch each
	test/faults/run

fuzz: compiler ## each fuzz test for FUZZTIME (1m)
	@git grep -oE '^func Fuzz[A-Za-z]+' -- '*_test.go' | sed 's|/[^/]*:func | |' | while read -r dir name; do \
		echo "$$dir $$name"; \
		$(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 50x ./$$dir </dev/null || exit 1; \
	done

bench: build ## the etl workload against real servers: CPU, records/s, memory, first commit
	$(GO) test -tags=$(TAGS),integration -count=1 -timeout 40m -v -run TestBench ./test/bench/...

soak: build ## what takes long: the binary killed at random for SOAK (1h), then a million simulated runs of each kind
	$(GO) test -tags=$(TAGS),integration,soak -count=1 -timeout 0 -v -run TestSoak ./test/integration -args -for $(SOAK)
	$(MAKE) sim SEEDS=1000000 SIM_TIMEOUT=0

$(LINT):
	mkdir -p .cache && GOBIN=$(CURDIR)/.cache GOFLAGS= $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION) && mv .cache/golangci-lint $(LINT)

lint: $(LINT) ## run the linter
	GOLANGCI_LINT_CACHE=$(CURDIR)/.cache/lint $(LINT) run ./...

spec-page: ## write docs/spec.md again, when keys have changed
	$(GO) test -count=1 ./internal/config -run TestSpecPage -update

fmt: ## format the code
	gofmt -w $$(git ls-files '*.go')

fmt-check: ## fail if the code is not formatted
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$unformatted" ] || { echo "not formatted (make fmt):"; echo "$$unformatted"; exit 1; }
