# make alone lists what there is.

GO ?= go
LINT_VERSION := 2.12.2
LINT := .bin/golangci-lint-$(LINT_VERSION)
COMPOSE := $(shell command -v docker-compose || echo docker compose)
IMAGE ?= muster:dev
FUZZTIME ?= 60s
# Of the comparison: -quick, or as its -help says.
BENCHFLAGS ?=

# Without a usable git, as in an unpacked archive or another user's clone, the
# program cannot say which commit it is.
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null)
BUILD := CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=$(if $(VERSION),auto,false) \
	-ldflags '-s -w -X main.version=$(or $(VERSION),dev)'

.DEFAULT_GOAL := help
.PHONY: help
help:
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: build ## build, and show the whole system at work on a simulated fleet
	bin/muster demo

.PHONY: build
build: ## build the program: bin/muster
	$(BUILD) -o bin/muster ./cmd/muster

.PHONY: test
test: ## run all tests
	$(GO) test ./...

# The commands are tested as whole processes with limits of their own on how
# long they wait, so they have the machine to themselves.
.PHONY: race
race: ## run all tests under the race detector (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -race -timeout 20m $$($(GO) list ./... | grep -v /cmd/muster$$)
	CGO_ENABLED=1 $(GO) test -race -timeout 20m ./cmd/muster

.PHONY: check
check: fmt vet lint tidy race ## what a change must pass: fmt, vet, lint, tidy, race

.PHONY: fmt
fmt: ## show what gofmt would change
	@test -z "$$(gofmt -l .)" || { gofmt -d .; exit 1; }

.PHONY: vet
vet: ## run go vet
	$(GO) vet ./...

.PHONY: lint
lint: $(LINT) ## run the linters of .golangci.yml
	GOLANGCI_LINT_CACHE=$(CURDIR)/.bin/lint-cache $(LINT) run

# Built from source, so that it knows the language version of this Go.
$(LINT):
	GOFLAGS= GOBIN=$(CURDIR)/.bin $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v$(LINT_VERSION)
	mv .bin/golangci-lint $@

.PHONY: tidy
tidy: ## show what go mod tidy would change
	$(GO) mod tidy -diff

.PHONY: bench
bench: ## run the benchmarks, and a sync beside its floors and beside gh | jq | psql
	$(GO) test -p 1 -run '^$$' -bench . -benchmem ./...
	$(GO) run ./internal/sidebyside $(BENCHFLAGS)

# Making what was found smaller may take a minute for each find, unless told: a
# run would do little else.
.PHONY: fuzz
fuzz: ## run each fuzz test for FUZZTIME (60s)
	@grep -rEo '^func Fuzz[A-Za-z0-9_]+' --include='*_test.go' . | while IFS=: read -r file func; do \
		echo "$${func#func } in $$(dirname "$$file")"; \
		$(GO) test -run '^$$' -fuzz "^$${func#func }$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x "$$(dirname "$$file")" || exit 1; \
	done

# pools joins when it is there.
MUTATE ?= policies worker/remove worker/token worker/inventory worker/scale
MUTATEFLAGS ?=

.PHONY: mutate
mutate: ## show which changes of the code of MUTATE the tests would not notice
	$(GO) run ./internal/mutate $(MUTATEFLAGS) $(MUTATE)

STORMS ?= 200

.PHONY: storm
storm: ## live through STORMS (200) random storms, each time others
	$(GO) test -count=1 -timeout 60m ./internal/storm -rapid.checks $(STORMS) -rapid.seed $$(date +%s)

# The image is what lies in dist and nothing else.
.PHONY: image
image: ## build the container image IMAGE (muster:dev)
	GOOS=linux $(BUILD) -o dist/muster ./cmd/muster
	cp -L $(or $(wildcard /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem),/etc/ssl/certs/ca-certificates.crt) dist/ca-certificates.crt
	docker build -t $(IMAGE) .

.PHONY: up
up: image ## start Postgres, NATS, muster and the GitHub simulator in containers
	MUSTER_IMAGE=$(IMAGE) $(COMPOSE) --profile simulator up -d

.PHONY: down
down: ## stop them and forget their data
	MUSTER_IMAGE=$(IMAGE) $(COMPOSE) --profile simulator down --volumes

.PHONY: migration
migration: ## begin the next schema migration: make migration name=add_hosts
	@case '$(name)' in ''|*[!a-z0-9_]*) echo 'make migration wants name=… of a-z, 0-9 and _' >&2; exit 2;; esac
	@last=$$(ls migrations/*.sql | sed 's|.*/0*\([0-9]*\)_.*|\1|' | sort -n | tail -1); \
	file=$$(printf 'migrations/%03d_%s.sql' $$((last + 1)) '$(name)'); \
	echo "-- $(name): say why. Forward only, and fit for the program of before and of after." >"$$file"; \
	echo "$$file"
