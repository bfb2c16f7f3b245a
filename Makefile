# The only door to tools: `make help` lists what there is.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --warn-undefined-variables --no-print-directory

BIN := $(abspath .bin)
export PATH := $(BIN):$(PATH)

SERVICES := deploy/services/services
PKG      ?= ./...
RUN      ?= .
BENCH    ?= .
COUNT    ?= 1
TIMEOUT  ?= 20m
# Appended to `doppel demo` (run) and to `doppel run` (run-real).
ARGS     ?=
# Of torture; what is 0 or empty has the default of the long form, SEED one from the clock.
SEED     ?= 0
ROUNDS   ?= 0
FAULTS   ?= 0
# Of world.
SCHEDULES ?= 0
TARGET   ?=
SCHEMATHESIS := 4.32.5
# What is compared with by `buf breaking`.
BASE     ?= $(firstword $(shell git rev-parse -q --verify origin/main 2>/dev/null || git rev-parse -q --verify main 2>/dev/null))

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: ## A node, a simulated fleet and the page, all in one process; needs Go only
	go run . demo $(ARGS)

.PHONY: run-real
run-real: ## The same on real Kafka, QuestDB and Mosquitto, started here and stopped on exit
	deploy/run-real $(ARGS)

.PHONY: test
test: grpcurl alertmanager schemathesis ## Everything, with the race detector, against real Kafka, QuestDB, Mosquitto and HiveMQ
	go vet $(PKG)
	$(SERVICES) with kafka questdb mosquitto hivemq -- \
	  go test -race -shuffle=on -count=1 -timeout $(TIMEOUT) -run '$(RUN)' $(PKG)
	$(if $(filter ./....,$(PKG)$(RUN)),go test -v -count=1 -timeout $(TIMEOUT) -run '^TestSchedules$$' ./sim/world)

.PHONY: torture
torture: ## 200 crash points embedded, 50 on real servers, 100 of a cluster (TARGET=embedded|real|broker|cluster|pauses|blackout SEED=n ROUNDS=n FAULTS=n)
	go test ./sim/fault -v -count=1 -timeout 0 -run '^TestTorture$$' -long -target '$(TARGET)' -seed $(SEED) -rounds $(ROUNDS) -faults $(FAULTS)

.PHONY: world
world: ## 100,000 schedules of the deterministic world, or some (SCHEDULES=n SEED=n)
	go test ./sim/world -v -count=1 -timeout 0 -run '^TestSchedules$$' -long -schedules $(SCHEDULES) -seed $(SEED)

.PHONY: bench
bench: ## Go benchmarks of the stages (BENCH=regexp COUNT=n PKG=packages)
	$(SERVICES) with kafka questdb mosquitto -- \
	  go test -run '^$$' -bench '$(BENCH)' -benchmem -count $(COUNT) -timeout 60m $(PKG)

.PHONY: lint
lint: golangci-lint buf ## Lint Go and protobuf
	golangci-lint run
	cd proto && buf lint && buf format --diff --exit-code

.PHONY: proto
proto: buf protoc-gen-go protoc-gen-go-grpc protoc-gen-openapi ## Generate Go from the protobuf files
	cd proto && buf generate

.PHONY: proto-check
proto-check: buf protoc-gen-go protoc-gen-go-grpc protoc-gen-openapi ## Fail if the generated Go is not current, or the API broke
	@tmp=$$(mktemp -d) && trap 'rm -rf "$$tmp"' EXIT && \
	(cd proto && buf generate --output "$$tmp") && \
	find proto \( -name '*.pb.go' -o -name openapi.yaml \) -printf '%P\n' | sort >"$$tmp/have" && \
	(cd "$$tmp" && find . \( -name '*.pb.go' -o -name openapi.yaml \) -printf '%P\n' | sort) | diff - "$$tmp/have" && \
	while read -r f; do diff -q "$$tmp/$$f" "proto/$$f" || { echo "generated code is stale: make proto" >&2; exit 1; }; done <"$$tmp/have"
	@if [[ '$(BASE)' ]]; then cd proto && buf breaking --against '../.git#ref=$(BASE),subdir=proto'; fi

.PHONY: check
check: lint proto-check test ## Everything a change needs before it lands

.PHONY: build
build: ## The doppel binary
	go build -trimpath -o doppel .

# Tools, pinned and built into .bin. A tool of the pinned version that is there already is left alone.
.PHONY: golangci-lint buf protoc-gen-go protoc-gen-go-grpc protoc-gen-openapi grpcurl alertmanager
golangci-lint:      ; $(call tool,github.com/golangci/golangci-lint/v2/cmd/golangci-lint,v2.15.0)
buf:                ; $(call tool,github.com/bufbuild/buf/cmd/buf,v1.75.0)
protoc-gen-go:      ; $(call tool,google.golang.org/protobuf/cmd/protoc-gen-go,v1.36.12)
protoc-gen-go-grpc: ; $(call tool,google.golang.org/grpc/cmd/protoc-gen-go-grpc,v1.6.2)
protoc-gen-openapi: ; $(call tool,github.com/google/gnostic/cmd/protoc-gen-openapi,v0.7.1)
# Python, in an environment of its own.
.PHONY: schemathesis
schemathesis:
	@$(BIN)/$@ --version 2>/dev/null | grep -qF ' $(SCHEMATHESIS)' || \
	  { python3 -m venv $(BIN)/python && $(BIN)/python/bin/pip install -q schemathesis==$(SCHEMATHESIS) && ln -sf python/bin/$@ $(BIN)/$@; }

grpcurl:            ; $(call tool,github.com/fullstorydev/grpcurl/cmd/grpcurl,v1.9.4)
alertmanager:       ; $(call tool,github.com/prometheus/alertmanager/cmd/alertmanager,v0.28.1)

tool = @go version -m $(BIN)/$@ 2>/dev/null | grep -qE '^\s+mod\s.*\s$(2)\s' || GOBIN=$(BIN) go install $(1)@$(2)
