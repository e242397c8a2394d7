# hapair. `make` alone prints the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

export CGO_ENABLED := 0
GO ?= go
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
GOBUILD := $(GO) build -trimpath -ldflags '$(LDFLAGS)'
# Everything but what needs a pair of its own; that runs alone, afterwards.
UNIT := $(GO) list ./... | grep -v '/test/netns$$'
PAIRS := ./test/netns
export HAPAIR_FAILOVERS ?= 20
# Commands the tests call, and the Debian packages that bring them.
TOOLS := ip:iproute2 ping:iputils-ping losetup:mount mkfs.ext4:e2fsprogs mkfs.xfs:xfsprogs fio:fio /usr/lib/ocf/resource.d/heartbeat/Dummy:resource-agents nbdinfo:libnbd-bin qemu-io:qemu-utils git:git

.PHONY: help
help: ## print the targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build haagent hactl halab haagent-lab
build: haagent hactl halab haagent-lab ## the programs, into bin/
haagent: ## the agent
	$(GOBUILD) -o bin/haagent ./agent
hactl: ## the operator's command
	$(GOBUILD) -o bin/hactl ./ctl
halab: ## a pair on one machine, for tests and trials
	$(GOBUILD) -o bin/halab ./test/halab
haagent-lab: ## the agent with the layer that injects faults; never for production
	$(GOBUILD) -tags lab -o bin/haagent-lab ./agent

# make install, as root or into a DESTDIR. What is installed depends on the programs in
# bin/ and on nothing of this machine.
DESTDIR ?=
PREFIX ?= /usr
SBINDIR = $(PREFIX)/sbin
BINDIR = $(PREFIX)/bin
MANDIR = $(PREFIX)/share/man
DOCDIR = $(PREFIX)/share/doc/hapair
UNITDIR = $(PREFIX)/lib/systemd/system
LOGINDIR = $(PREFIX)/lib/systemd/logind.conf.d
COMPLETIONS = bash:share/bash-completion/completions/hactl zsh:share/zsh/site-functions/_hactl fish:share/fish/vendor_completions.d/hactl.fish
UNITS := hapair.service hapair-witness.service
INSTALL_FILE = install -D -m 0644

.PHONY: install uninstall
install: ## programs, units, man pages, completions below DESTDIR= PREFIX=/usr, after make build
	@for p in haagent hactl; do [ -x bin/$$p ] || { echo "bin/$$p is not there: make build first (not as root)" >&2; exit 1; }; done
	install -D -m 0755 bin/haagent $(DESTDIR)$(SBINDIR)/haagent
	install -D -m 0755 bin/hactl $(DESTDIR)$(BINDIR)/hactl
	@tmp=$$(mktemp -d) && trap 'rm -rf "$$tmp"' EXIT; \
	for u in $(UNITS); do \
		sed -e 's|@SBINDIR@|$(SBINDIR)|g' -e 's|@DOCDIR@|$(DOCDIR)|g' agent/systemd/$$u.in >$$tmp/unit; \
		$(INSTALL_FILE) $$tmp/unit $(DESTDIR)$(UNITDIR)/$$u; \
	done; \
	bin/hactl man $$tmp/man; \
	$(INSTALL_FILE) -t $(DESTDIR)$(MANDIR)/man8 $$tmp/man/*.8 agent/systemd/haagent.8; \
	for c in $(COMPLETIONS); do \
		bin/hactl completion $${c%%:*} >$$tmp/completion; \
		$(INSTALL_FILE) $$tmp/completion $(DESTDIR)$(PREFIX)/$${c#*:}; \
	done
	$(INSTALL_FILE) agent/systemd/logind.conf $(DESTDIR)$(LOGINDIR)/50-hapair.conf
	$(INSTALL_FILE) -t $(DESTDIR)$(DOCDIR) README.md CHANGELOG.md LICENSE
	$(INSTALL_FILE) -t $(DESTDIR)$(DOCDIR)/docs docs/*.md
	$(INSTALL_FILE) agent/systemd/hapair.yaml $(DESTDIR)$(DOCDIR)/examples/hapair.yaml
	@[ -n "$(DESTDIR)" ] || ! type -P systemctl >/dev/null || systemctl daemon-reload || true
uninstall: ## remove what make install installed, with the same DESTDIR= and PREFIX=; configuration and state stay
	rm -f $(DESTDIR)$(SBINDIR)/haagent $(DESTDIR)$(BINDIR)/hactl
	rm -f $(UNITS:%=$(DESTDIR)$(UNITDIR)/%) $(DESTDIR)$(LOGINDIR)/50-hapair.conf
	rm -f $(DESTDIR)$(MANDIR)/man8/haagent.8 $(DESTDIR)$(MANDIR)/man8/hactl.8 $(DESTDIR)$(MANDIR)/man8/hactl-*.8
	@for c in $(COMPLETIONS); do rm -f $(DESTDIR)$(PREFIX)/$${c#*:}; done
	rm -rf $(DESTDIR)$(DOCDIR)

.PHONY: deps
deps: ## install the Debian packages the tests need, or say which are missing
	@missing=; \
	for t in $(TOOLS); do PATH=$$PATH:/usr/sbin:/sbin type -P "$${t%%:*}" >/dev/null || missing="$$missing $${t##*:}"; done; \
	type -P $(GO) >/dev/null || { echo "go is missing: take Go 1.26 or later from https://go.dev/dl/" >&2; exit 1; }; \
	[ -n "$$missing" ] || exit 0; \
	if [ "$$(id -u)" = 0 ] && type -P apt-get >/dev/null; then \
		echo "installing:$$missing"; \
		apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install $$missing >/dev/null; \
	else \
		echo "missing packages; run: sudo apt-get install -y$$missing" >&2; exit 1; \
	fi

.PHONY: test unit netns
test: deps build ## everything that must hold: vet, units, golden files, form, simulation, a pair in namespaces
	@failed=; \
	echo "== vet"; $(GO) vet ./... || failed="$$failed vet"; $(GO) vet -tags lab ./... || failed="$$failed vet-lab"; \
	echo "== unit, golden, tidy"; $(GO) test -timeout 10m $$($(UNIT)) || failed="$$failed unit"; \
	echo "== pairs in namespaces"; $(GO) test -count=1 -timeout 18m $(PAIRS) || failed="$$failed netns"; \
	if [ -n "$$failed" ]; then echo "FAILED:$$failed"; exit 1; fi; echo "PASSED"
unit: ## the tests that need no pair
	$(GO) test -timeout 10m $$($(UNIT))
netns: build ## the pairs of `make test` alone, with what takes long as well (root)
	HAPAIR_LONG=1 $(GO) test -count=1 -v -timeout 40m $(PAIRS) $(ARGS)

KILLS ?= 2
.PHONY: apps
apps: build ## real applications on ext4 and xfs while the Primary loses its power KILLS=2 times each (root)
	HAPAIR_APPS=1 HAPAIR_KILLS=$(KILLS) $(GO) test -count=1 -v -timeout 60m -run 'TestApp' $(PAIRS) $(ARGS)

CALM ?= 10m
.PHONY: calm
calm: build ## nobody fails over while all processors are busy for CALM=10m, and for half of it the memory too (root)
	HAPAIR_CALM=$(CALM) $(GO) test -count=1 -timeout 0 -v -run 'TestCalm' $(PAIRS) $(ARGS)

.PHONY: paths
paths: build ## cut, silence, narrow and flap the crossover under load; print what it costs (root)
	HAPAIR_PATHS=1 $(GO) test -count=1 -timeout 20m -v -run 'TestPathTrials|TestPathCuts' $(PAIRS) $(ARGS)

.PHONY: race
race: ## all tests under the race detector (needs gcc)
	CGO_ENABLED=1 $(GO) test -race -timeout 20m $$($(UNIT))

T ?= 30s
.PHONY: fuzz
fuzz: ## each fuzz target for T=30s
	@grep -rn --include='*_test.go' -oE '^func Fuzz[A-Za-z0-9_]+' . | sed -E 's|^\./(.*)/[^/]*:[0-9]+:func |\1 |' | sort -u | \
	while read -r dir target; do echo "== $$dir $$target"; $(GO) test "./$$dir" -run='^$$' -fuzz="^$$target\$$" -fuzztime=$(T); done

SEEDS ?= 200
SEED ?=
.PHONY: sim
sim: ## the simulator with SEEDS=200 seeds (a quarter where disks hang, a twentieth where copies rot) from SEED=n on
	SEEDS=$(SEEDS) SEED=$(SEED) $(GO) test -count=1 -timeout 12h -v ./test/sim

.PHONY: scenarios
scenarios: build ## every file of test/script/scenarios: in the simulator with SEEDS=200 seeds, then by real agents (root); SCENARIO=name for one
	HAPAIR_SCENARIO=$(SCENARIO) HAPAIR_SCENARIO_SEEDS=$(SEEDS) SEED=$(SEED) $(GO) test -count=1 -timeout 12h -v -run 'TestScenarios$$' ./test/sim
	HAPAIR_SCENARIO=$(SCENARIO) HAPAIR_LONG=1 $(GO) test -count=1 -timeout 40m -v -run 'TestScenarios$$' $(PAIRS)

# Where the kernel of the virtual machines is kept, once fetched.
VMDIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/hapair/vm
.PHONY: vm-lab vmguest
vm-lab: build vmguest ## a power cut, scenarios, poison pills, a fence agent and VLANs in virtual machines, by QEMU without KVM (fetches a Debian kernel; no root); SCENARIO=name,name for some, or all
	test/vm/fetch.sh $(abspath $(VMDIR))
	HAPAIR_SCENARIO=$(SCENARIO) HAPAIR_VM=$(abspath $(VMDIR)) $(GO) test -count=1 -timeout 120m -v $(if $(SCENARIO),-run 'TestScenarios$$') ./test/vm $(ARGS)
vmguest: ## process 1 of the virtual machines
	$(GOBUILD) -o bin/vmguest ./test/vm/guest

.PHONY: systemd-lab
systemd-lab: build ## a pair of machines with a systemd of their own, in namespaces: shutdown, restart, watchdog (root)
	HAPAIR_SYSTEMD=1 $(GO) test -count=1 -timeout 15m -v ./test/systemdlab $(ARGS)

.PHONY: bubble
bubble: ## the cluster on virtual time, with a witness, by fencing, and manual, with SEEDS=200 seeds of each from SEED=n on
	HAPAIR_BUBBLE_SEEDS=$(SEEDS) SEED=$(SEED) $(GO) test -count=1 -timeout 120m -v -run 'Chaos$$' ./test/bubble $(ARGS)

.PHONY: bench
bench: build ## hapair beside what QEMU offers, by fio, as tables; ARGS=--help says how to choose
	$(GO) run ./test/bench $(ARGS)
.PHONY: bench-micro
bench-micro: ## the benchmarks of single parts
	$(GO) test -run='^$$' -bench=. -benchmem $$($(UNIT))

.PHONY: demo
demo: deps build ## power cut of the Primary, return and switchover, shown and judged; KEEP=1 leaves the pair running
	bin/halab demo $(if $(KEEP),--keep)

.PHONY: golden
golden: ## rewrite the golden files; look at the difference before it is committed
	@grep -rlE --include='*_test.go' 'flag\.Bool\("update"' . | xargs -r -n1 dirname | sort -u | xargs -r -I{} $(GO) test {} -update

.PHONY: model
model: ## check the protocol's model and its mutants (needs spin and gcc)
	@type -P spin gcc >/dev/null || { echo "missing packages; run: sudo apt-get install -y spin gcc" >&2; exit 1; }
	test/model/check.sh

.PHONY: lint
lint: ## gofmt, vet and golangci-lint
	@out=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$out" ] || { echo "not formatted:"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	@if type -P golangci-lint >/dev/null; then golangci-lint run; \
	else echo "golangci-lint is not installed: go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0"; fi

.PHONY: clean
clean: ## remove what was built
	rm -rf bin dist
