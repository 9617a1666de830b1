# Two commands do all the set-up: `make run` and `make test`. `make help` lists the rest.

GO       ?= go
TOOL     := $(GO) tool -modfile=tools/go.mod
FUZZTIME ?= 60s
BENCH    ?= bench-out
TAGS     ?=

.PHONY: help run test conformance-mqtt test-go test-native test-short asan lint fmt fuzz fuzz-asan bench bench-mqtt bench-go cover readme licences notices vuln deps

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## start the broker on loopback: TCP, TLS, WebSocket, WebTransport and QUIC
	$(GO) run ./cmd/anyquic serve

test: ## everything, with the race detector; installs what it needs where it may
	@build/test.sh

test-go: ## the default build alone: pure Go
	@build/test.sh go

test-native: ## the native engine alone, with OpenSSL and with wolfSSL
	@build/test.sh native

asan: ## the native engine under AddressSanitizer
	@build/test.sh asan

test-short: ## the quick part, without the race detector
	$(GO) test -short -shuffle=on ./...

lint: ## formatting, vet and golangci-lint, for every build
	@test -z "$$(gofmt -l .)" || { echo "not gofmt'ed:"; gofmt -l .; exit 1; }
	@build/lint.sh

conformance-mqtt: ## which statements of MQTT 5 and 3.1.1 the tests prove; writes docs/mqtt-conformance.md
	$(GO) run ./tests/mqttstatements -update

fmt: ## format the code
	$(TOOL) gofumpt -w .

fuzz: ## run every fuzz target for FUZZTIME (60s)
	@build/fuzz.sh $(FUZZTIME)

fuzz-asan: ## the native engine's fuzz targets under AddressSanitizer, for FUZZTIME (60s)
	@build/fuzz.sh $(FUZZTIME) asan

bench-mqtt: ## what is asked of the broker beside what it reaches, in ROUNDS (5), into bench-out/
	@build/bench.sh $(BENCH) mqtt

bench: ## the whole-program figures, beside mochi-mqtt, into bench-out/
	@build/bench.sh $(BENCH)

bench-go: ## the Go benchmarks, ten times, for benchstat
	$(GO) test -run '^$$' -bench . -benchmem -count 10 ./...

cover: ## statement coverage per package
	$(GO) test -short -cover ./...

readme: ## write the generated parts of README.md
	@build/readme.sh

licences: ## write third_party/licences: the list for all that we link
	$(GO) test ./third_party -count=1 -update

notices: ## the licences' texts to pass on with a program built with TAGS, into build/out/NOTICES.txt
	@mkdir -p build/out
	@build/notices.sh "$(TAGS)" >build/out/NOTICES.new && mv build/out/NOTICES.new build/out/NOTICES.txt || { rm -f build/out/NOTICES.new; exit 1; }
	@echo build/out/NOTICES.txt

vuln: ## known vulnerabilities in what we import
	$(TOOL) govulncheck ./...

deps: ## the C libraries of the native engine, into build/out
	@build/deps.sh
