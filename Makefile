# Two commands do all the set-up: `make run` and `make test`. `make help` lists the rest.

GO       ?= go
TOOL     := $(GO) tool -modfile=tools/go.mod
FUZZTIME ?= 60s
BENCH    ?= bench-out

.PHONY: help run test test-short lint fmt fuzz bench bench-go cover readme vuln deps

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## start the broker on loopback: TCP, TLS, WebSocket and QUIC
	$(GO) run ./cmd/anyquic serve

test: ## everything, with the race detector; installs the foreign MQTT clients where it may
	@build/test.sh

test-short: ## the quick part, without the race detector
	$(GO) test -short -shuffle=on ./...

lint: ## formatting, vet and golangci-lint
	@test -z "$$(gofmt -l .)" || { echo "not gofmt'ed:"; gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(TOOL) golangci-lint run ./...

fmt: ## format the code
	$(TOOL) gofumpt -w .

fuzz: ## run every fuzz target for FUZZTIME (60s)
	@build/fuzz.sh $(FUZZTIME)

bench: ## the whole-program figures, beside mochi-mqtt, into bench-out/
	@build/bench.sh $(BENCH)

bench-go: ## the Go benchmarks, ten times, for benchstat
	$(GO) test -run '^$$' -bench . -benchmem -count 10 ./...

cover: ## statement coverage per package
	$(GO) test -short -cover ./...

readme: ## write the generated parts of README.md
	$(GO) test ./cmd/anyquic -run TestREADME -update

vuln: ## known vulnerabilities in what we import
	$(TOOL) govulncheck ./...

deps: ## the C libraries of the native engine to come, into build/out
	@build/deps.sh
