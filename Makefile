# pgwicket. "make" or "make help" lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help

GO      ?= go
# The last release, the number of commits since and the commit; where there is no tag, the version of main.go and the commit.
VERSION ?= $(shell git describe --tags --match 'v[0-9]*' --dirty 2>/dev/null | sed 's/^v//' | grep . || \
	echo "$$(sed -n 's/^const devVersion = "\(.*\)"$$/\1/p' cmd/pgwicket/main.go)+$$(git describe --always --abbrev=12 --exclude '*' --dirty=.dirty 2>/dev/null)")
# What dpkg and rpm can compare: 0.1.0-5-gabcdef0 comes after 0.1.0, and 0.1.0-dev before it.
PACKAGE := $(shell echo '$(VERSION)' | sed -E 's/^v//; s/-([0-9]+)-(g[0-9a-f]+)/+\1.\2/; s/-dirty$$/.dirty/; s/\+$$//')
LDFLAGS := -w -X main.version=$(VERSION)
TOOL    := $(GO) tool -modfile=tools/go.mod
# The race detector needs cgo and a C compiler.
RACE    := $(shell command -v cc >/dev/null 2>&1 && [ "$$($(GO) env CGO_ENABLED)" = 1 ] && echo -race)
# The modules that test deploy, each apart for the sake of its dependencies.
DEPLOY := deploy/test deploy/prometheus/test deploy/kubernetes/test
FUZZTIME ?= 60s
TIME     ?= 10m
# Builds a program of the module in test and runs it here, so that paths in ARGS are from here.
RUN = run() { $(GO) build -C test -o "$(CURDIR)/bin/" "./$$1" && "bin/$$1" "$${@:2}"; }; run

.PHONY: help build packages demo test deploy-test ca-test spire-test fresh-test lint fuzz soak upgrade-pause bench bench-quick bench-peers bench-scale faults faults-quick interop interop-quick interop-moments interop-moments-quick interop-replication interop-tools interop-upgrades screenshots clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-23s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/pgwicket
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/pgwicket ./cmd/pgwicket

packages: build ## make the deb and the rpm, in bin
	GO="$(GO)" deploy/packages/generate.sh bin/generated -trimpath -ldflags '$(LDFLAGS)'
	nfpm=$$($(GO) -C deploy/test tool -n nfpm) && for format in deb rpm; do \
		GOARCH=$$($(GO) env GOARCH) VERSION=$(PACKAGE) $$nfpm package -f deploy/packages/nfpm.yaml -p $$format -t bin/; done

demo: ## see a working gate in front of a real PostgreSQL, from nothing (ARGS=--once to leave after the scenarios)
	@GO="$(GO)" .ci/need go ca-certificates postgresql
	@$(MAKE) --no-print-directory build
	@$(GO) build -o bin/pgwicket-demo ./cmd/pgwicket-demo
	@bin/pgwicket-demo $(ARGS)

test: ## run every test, against a real PostgreSQL (OPTIONAL=1 also installs what some of them call: a browser, shells, scanners)
	@GO="$(GO)" .ci/need go ca-certificates postgresql openssl
	@OPTIONAL=$(OPTIONAL) .ci/need --optional sslscan chromium nftables iproute2 mandoc fish zsh bash-completion pgbouncer stunnel4
	@[ -n "$(RACE)" ] || echo "no C compiler: testing without the race detector"
	$(GO) test $(RACE) -timeout 20m ./...
	$(GO) test -C test $(RACE) -timeout 20m ./...

deploy-test: ## hold every file of deploy, and the release, to the programs that read them (installs those as root on Debian)
	@.ci/need postgresql openssl haproxy shellcheck rpm
	@OPTIONAL=$(OPTIONAL) .ci/need --optional fail2ban systemd prometheus debootstrap docker.io
	for module in $(DEPLOY); do $(GO) test -C $$module -timeout 20m ./... || exit 1; done

ca-test: ## a gate with certificates and lists of step-ca, easy-rsa, GnuTLS and openssl ca (builds step-ca: minutes when cold)
	@.ci/need postgresql openssl
	@OPTIONAL=$(OPTIONAL) .ci/need --optional easy-rsa gnutls-bin curl
	$(GO) test -C test/ca -timeout 20m ./...

spire-test: ## a gate and a client with SVIDs of SPIRE (builds SPIRE: ten minutes and more when cold)
	@.ci/need postgresql openssl
	SPIRE=1 $(GO) test -C test/ca -timeout 60m -run SPIRE -v .

fresh-test: ## what the README says, on a fresh Debian 12 that is thrown away (root; TARGETS=test for make test as well, which takes an hour)
	@.ci/fresh $(TARGETS)

lint: ## golangci-lint in every module, go vet for other systems, gofumpt, go.mod; minutes when cold
	$(GO) mod tidy -diff
	$(GO) -C test mod tidy -diff
	for os in darwin freebsd windows; do GOOS=$$os $(GO) vet ./... || exit 1; done
	@echo "golangci-lint (built on first use, which takes some minutes)"
	linter=$$($(TOOL) -n golangci-lint) && for module in . test test/ca $(DEPLOY); do \
		echo "$$module" && (cd $$module && "$$linter" run ./...) || exit 1; done

fuzz: ## run every fuzz target for FUZZTIME (60s) each (ARGS=internal/tlsrecord for those of one directory, FUZZJOBS=2 for two at a time)
	@FUZZTIME=$(FUZZTIME) GO="$(GO)" .ci/fuzz $(ARGS)

soak: ## mixed clients, reloads, kills and floods for TIME (10m), every answer checked (ARGS="--seed 7" for the same again)
	@.ci/need postgresql openssl
	@$(RUN) siege soak --time $(TIME) $(ARGS)

upgrade-pause: ## how long sessions wait for an answer while the gate is upgraded (ARGS="--sessions 2000")
	@.ci/need postgresql openssl
	@$(RUN) siege upgrade-pause $(ARGS)

bench: ## run the Go benchmarks, in the form that benchstat reads
	$(GO) test -run '^$$' -bench . -benchmem ./...

bench-quick: ## CPU per transaction beside PgBouncer and stunnel, in three minutes (installs them as root on Debian)
	@$(RUN) bench quick $(ARGS)

bench-peers: ## every scenario beside every peer, into docs/results/performance.md (close to an hour; ARGS="--rounds 3 --burst 1s" for less)
	@$(RUN) bench peers --into docs/results/performance.md $(ARGS)

bench-scale: ## how pgwicket's own cost grows, and where the time goes, into docs/results/performance.md (a quarter of an hour)
	@$(RUN) bench scale --into docs/results/performance.md $(ARGS)

faults: ## kill, cut, stop and flood everything around a gate, into docs/results/reliability.md (twenty minutes; as root also a network)
	@.ci/need postgresql openssl
	@$(RUN) siege faults --into docs/results/reliability.md $(ARGS)

faults-quick: ## the same in five minutes, for CI (ARGS="--only NAME" for one of them)
	@.ci/need postgresql openssl
	@$(RUN) siege faults --quick $(ARGS)

interop: ## every release of PostgreSQL and every client through a gate, into docs/results/interop.md (installs them into .interop)
	@.ci/need postgresql openssl
	@$(RUN) interop matrix --into docs/results/interop.md $(ARGS)

interop-quick: ## the same with a small value and short waits, for CI (ARGS="--only psql" for one client)
	@.ci/need postgresql openssl
	@$(RUN) interop matrix --quick $(ARGS)

interop-moments: ## limits, drains, revocations and restarts as each client sees them, into docs/results/interop.md (three minutes)
	@.ci/need postgresql openssl
	@$(RUN) interop moments --into docs/results/interop.md $(ARGS)

interop-moments-quick: ## the same without the file, for CI (ARGS="--only JDBC" for one client)
	@.ci/need postgresql openssl
	@$(RUN) interop moments $(ARGS)

interop-replication: ## backups, standbys, WAL and logical replication through a gate, by checksum, into docs/results/interop.md
	@.ci/need postgresql openssl
	@$(RUN) interop replication --into docs/results/interop.md $(ARGS)

interop-tools: ## pg_dump, pg_restore, psql -f and pgbench through a gate, by checksum, into docs/results/interop.md
	@.ci/need postgresql openssl
	@$(RUN) interop tools --into docs/results/interop.md $(ARGS)

interop-upgrades: ## COPY, JDBC, a pipeline, a backup and replication through ten upgrades each, by checksum, into docs/results/reliability.md
	@.ci/need postgresql openssl
	@$(RUN) interop upgrades --into docs/results/reliability.md $(ARGS)

screenshots: ## take the pictures of the status page in docs/img anew
	@.ci/need chromium
	SCREENSHOTS=1 VERSION='$(VERSION)' $(GO) test -count=1 -run TestScreenshots ./internal/status

clean: ## remove what was built
	rm -rf bin
