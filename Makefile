# The logic is in Go; this file only names it.
export CGO_ENABLED = 0
# One way to compile, so that all that is built here shares the build cache.
export GOFLAGS = -trimpath
SHELL = /bin/bash

# Evaluated where it is used: builds what is missing, out of hack/tools/go.mod.
GOLANGCI_LINT = $(shell go run ./hack/binaries golangci-lint)/golangci-lint
GENERATE_TOOLS = $(shell go run ./hack/binaries controller-gen helm)
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
TESTBED = go run ./test/testbed/cmd/testbed
# Real kernels and real clusters: these packages take the machine for themselves.
SYSTEM = ./test/testbed/... ./test/e2e/... ./test/chaos/...
# All others but the replay of scenarios, whose log is kept. Those that take longest begin
# first, so that none of them is still at work when all others have ended.
UNIT = ./pkg/dataplane ./controllers ./pkg/egress ./pkg/agent ./test/boot \
  $$(go list ./... | grep -v -e /test/page -e /test/testbed -e /test/e2e -e /test/chaos -e /test/conformance)
FUZZTIME ?= 1m
SEED ?= $(shell echo $$RANDOM)
MINUTES ?= 30
KILLS ?= 50
DUAL_STACK ?=
IPV6_ONLY ?=
IPV6 ?=
CELL ?=

# Compilers, API servers and tests collect garbage less often, for more memory: compiling
# client-go took a fifth less processor time (191 s of 245 s).
vet verify lint tools race test-unit smoke test-conformance: export GOGC ?= 400

.PHONY: help demo generate build plugin release reproducible dockerfile arm64 manifests kubernetes-versions test test-unit test-conformance page-test test-system race cover smoke vet chaos former upgrade skew failover displacement fuzz e2e ipv6-only bench microbench scale alerts lint fmt verify image up down shell matrix packet-matrix filters kernels mutants tools prerequisites vulncheck site

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-19s %s\n", $$1, $$2 }' Makefile

demo: prerequisites tools image ## Play the main job on a cluster of this machine (root, Debian, Go)
	go run ./hack/demo

prerequisites: ## Install the Debian packages that the test bed needs
	$(TESTBED) install

tools: ## Build the pinned Kubernetes binaries (cold: 8 to 20 minutes)
	go run ./hack/binaries cluster

generate: ## Regenerate deepcopy code, CRDs, tables of the docs, and config/ from the chart
	$(GENERATE_TOOLS)/controller-gen object crd paths=./api/... output:crd:dir=config/crd
	mv config/crd/k8s.ovn.org_egressips.yaml config/crd/egressip.network.openshift.io_*.yaml config/egressip/
	cp config/crd/network.openshift.io_*.yaml config/egressip/k8s.ovn.org_egressips.yaml config/egressip/egressip.network.openshift.io_*.yaml charts/egressip-operator/files/crds/
	go run ./hack/reference
	$(GENERATE_TOOLS)/helm template egressip-operator charts/egressip-operator --namespace egressip-system \
	  --kube-version 1.37.0 --api-versions admissionregistration.k8s.io/v1/MutatingAdmissionPolicy --set crds.install=false | go run ./hack/kustomize -o config

build: ## Build the binaries into build/
	go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o build/ . ./cmd/...

plugin: ## Build the kubectl plugin for Linux, macOS and Windows, with a manifest for krew that has PLUGIN_URL
	go run ./hack/plugin -version $(VERSION) $(if $(PLUGIN_URL),-url $(PLUGIN_URL))

release: ## Make all files of release VERSION=v1.2.3 in build/release: images, chart, plugin, manifests, SBOMs
	go run ./hack/release -version "$(VERSION)" $(if $(RELEASE_URL),-url $(RELEASE_URL))

# With a build cache of its own, so that nothing of the first release is taken for the second.
reproducible: release ## Make the release again from a clone, elsewhere, and compare (minutes)
	rm -rf build/again && git clone -q --no-hardlinks . build/again/clone-elsewhere
	cd build/again/clone-elsewhere && GOCACHE=$(CURDIR)/build/again/cache go run ./hack/release -version "$(VERSION)" $(if $(RELEASE_URL),-url $(RELEASE_URL))
	diff build/release/SHA256SUMS build/again/clone-elsewhere/build/release/SHA256SUMS
	rm -rf build/again

# Base images are made of Debian packages and this machine's Go: no registry is asked.
dockerfile: ## Build the Dockerfile with buildah, and compare with the release's image (buildah, mmdebstrap; root)
	EGRESSIP_TEST_DOCKERFILE=yes go test -count=1 -v -timeout 60m ./test/dockerfile

# Of what talks to the kernel, nothing: the emulation has neither bpf(2) nor netlink of netfilter.
arm64: ## Run the image for arm64, and unit tests of marks, rules and health, emulated (qemu-user-static)
	EGRESSIP_TEST_ARM64=yes go test -count=1 -v -timeout 60m ./test/arm64
	GOARCH=arm64 go test -exec qemu-aarch64-static -timeout 60m ./pkg/dataplane/mark ./pkg/dataplane/rules ./pkg/online

manifests: ## Compare what the chart makes with the schemas of three versions of Kubernetes
	EGRESSIP_TEST_SCHEMAS=yes go test -count=1 -v -run 'TestSchemas$$' ./test/install

image: build ## Make build/image.tar, tagged egressip-operator:dev, without Docker
	go run ./hack/image

# On demand only: the server is built from a module of its own, which takes 10 minutes.
kubernetes-versions: ## Run what talks to an API server against the oldest one that is supported
	KUBEBUILDER_ASSETS=$$(go run ./hack/binaries -module hack/kubernetes-1.31 apiserver) \
	  go test -count=1 -timeout 60m ./controllers ./pkg/agent ./cmd/kubectl-egressip ./internal/endpoint ./test/install ./test/conformance ./test/conformance/egressip

test: prerequisites test-unit test-conformance page-test test-system ## Run all tests (root)

test-unit: tools
	@mkdir -p build
	go test -timeout 20m -coverprofile build/cover.out $(UNIT)

# The system tests are left out: their work is done by programs that they start, which
# the detector would not see. Three packages at a time on two processors: most of the time
# they wait, those of the API server for objects, the others for the kernel. All is compiled
# first: else the tests of controllers, which need most packages, begin when others are half
# done, and are at work alone in the end.
race: tools ## Run the unit tests with the race detector (root, a C compiler)
	@mkdir -p build
	CGO_ENABLED=1 go build -race ./...
	CGO_ENABLED=1 go test -race -p 3 -timeout 40m -coverprofile build/cover.out $(UNIT)

cover: ## Print what the last test-unit or race covered, by package
	go run ./hack/coverage build/cover.out

# Not part of test-unit: a browser is 100 MB that nothing else needs.
page-test: tools ## Test the controller's page in headless Chromium, installed from Debian (root)
	command -v chromium > /dev/null || { apt-get update -q; DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends chromium fonts-dejavu-core; }
	EGRESSIP_TEST_BROWSER=yes go test -timeout 10m ./test/page

smoke: ## Run each fuzz test for ten seconds and each benchmark once
	go run ./hack/smoke

test-conformance: tools
	@mkdir -p build
	go test -v -timeout 20m ./test/conformance/... > build/conformance.log || { cat build/conformance.log; exit 1; }
	@grep -e 'CONFORMANCE' -e '^ok' build/conformance.log

test-system: tools image
	go test -timeout 40m -p 1 $(SYSTEM)

e2e: prerequisites tools image ## Run the end-to-end tests alone
	go test -timeout 40m -v ./test/e2e/...

ipv6-only: prerequisites tools image ## Play the main job on a cluster without any IPv4 (root)
	EGRESSIP_TEST_IPV6_ONLY=yes go test -timeout 20m -v -run 'TestIPv6Only$$' ./test/e2e

matrix: prerequisites tools image ## Try it on each CNI and kube-proxy mode, or on CELL alone (root)
	go run ./hack/matrix -cell "$(CELL)"

packet-matrix: prerequisites ## Run the packet tests beside every kind of rules of others (root)
	EGRESSIP_TEST_MATRIX=all go test -timeout 40m ./pkg/dataplane

# What is not installed is left out. Packages are not installed here: where systemd runs,
# that would start firewalld on the machine itself.
filters: prerequisites ## Run the packet tests with ufw, firewalld and NetworkManager, where they are installed (root)
	EGRESSIP_TEST_MATRIX=all go test -timeout 40m -v -run 'PacketFiltersOfNodes|UnderNetwork' ./pkg/dataplane

alerts: ## Test the chart's alerts, with promtool of Debian's package prometheus
	$$(go run ./hack/promtool) check rules charts/egressip-operator/files/alerts.yaml
	$$(go run ./hack/promtool) test rules test/alerts/testdata/alerts_test.yaml

kernels: ## Run packet tests, tc programs and more in Debian's older kernels, emulated (root; hours)
	go run ./test/kernels

former: prerequisites tools image
	@test -n "$(FROM)" || { echo 'say from which version, such as FROM=v0.1.0'; exit 1; }
	rm -rf build/former && mkdir -p build/former/tree
	git archive $(FROM) | tar -x -C build/former/tree
	cd build/former/tree && CGO_ENABLED=0 go build -o ../egressip-operator .
	go run ./hack/image -binary build/former/egressip-operator -tag egressip-operator:former -o build/former/image.tar

upgrade: former ## Upgrade from the version of commit FROM, and go back, while pods send (root)
	EGRESSIP_TEST_FORMER=$(CURDIR)/build/former go test -count=1 -v -timeout 30m -run 'TestUpgrade$$' ./test/e2e

skew: former ## Mix controllers and agents with those of commit FROM, roll back and uninstall, while pods send (root)
	EGRESSIP_TEST_FORMER=$(CURDIR)/build/former go test -count=1 -v -timeout 40m -run 'TestSkew$$' ./test/e2e

chaos: prerequisites tools image ## Break a cluster at random for MINUTES, the same way for the same SEED; DUAL_STACK=yes for both families, IPV6_ONLY=yes for IPv6 alone
	go run ./test/chaos -seed $(SEED) -for $(MINUTES)m $(if $(DUAL_STACK),-dual-stack) $(if $(IPV6_ONLY),-ipv6-only)

failover: prerequisites tools image ## Measure the outage of KILLS power cuts of each kind; IPV6=yes for egress IPs of IPv6
	go run ./test/bench/failover -kills $(KILLS) $(if $(IPV6),-ipv6)

displacement: prerequisites ## Measure how long others' rules stand before ours (root)
	go run ./test/bench/displacement

fuzz: ## Run each fuzz test for FUZZTIME
	go run ./hack/smoke -benchmarks=false -fuzztime $(FUZZTIME)

# Not part of make test: it takes minutes, and its figures depend on what else runs.
scale: ## Measure the controller with 1,000 hosts, 10,000 namespaces, 12,000 egress IPs
	EGRESSIP_TEST_HOSTS=1000 EGRESSIP_TEST_NAMESPACES=10000 go test -count=1 -v -timeout 60m -run 'TestScale$$' ./controllers

bench: prerequisites ## Measure what packets of pods cost, beside the kernel alone, and write docs/benchmarks.md; QUICK=yes for a short run
	@mkdir -p build test/bench/paths/results
	go build -o build/paths ./test/bench/paths
	build/paths -rounds $(if $(QUICK),6,40) -each $(if $(QUICK),200ms,500ms) -o test/bench/paths/results/ways.json
	build/paths -set growth -only 'TCP, 1|UDP|new' -rounds $(if $(QUICK),6,20) -each $(if $(QUICK),200ms,500ms) -o test/bench/paths/results/growth.json
	go run ./test/bench/report

microbench: ## Run the benchmarks of the code itself
	go test -run '^$$' -bench . -benchmem ./pkg/... ./controllers

mutants: ## Plant the named mutants, two at a time: each must turn a test red (root; hours)
	go run ./hack/mutants -jobs 2

site: ## Build the documentation as a web site, into build/site/html (Debian's mkdocs; root installs it)
	go run ./hack/site

vet: ## Compile and vet everything
	go vet ./...

lint: ## Run the linters
	$(GOLANGCI_LINT) run --allow-parallel-runners ./...

vulncheck: ## Look for known vulnerabilities (asks vuln.go.dev)
	$$(go run ./hack/binaries govulncheck)/govulncheck ./...

fmt: ## Format the code
	$(GOLANGCI_LINT) fmt ./...

verify: ## Regenerate and tidy: fails on a difference
	go run ./hack/verify $(MAKE) --no-print-directory generate fmt '&&' go mod tidy '&&' go -C hack/tools mod tidy

up: prerequisites tools image ## Bring up a cluster of three nodes, with the operator's image loaded
	$(TESTBED) -image build/image.tar up

down: ## Remove it
	$(TESTBED) down

shell: ## A shell with kubectl for it; make shell PLACE=node1 for a node's
	@$(TESTBED) shell $(PLACE)
