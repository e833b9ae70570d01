# `make` lists what there is. Everything runs as root on a bare Debian 12 or 13 machine and installs what it needs.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONDONTWRITEBYTECODE := 1
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg

.PHONY: help
help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo:  ## install the appliance and six emulated routers on test hosts; ends with a URL
	@ci/bootstrap
	@$(PYTHON) ci/demo.py

.PHONY: demo-stop
demo-stop:  ## remove every trace of the demo
	@ci/bootstrap
	@$(PYTHON) ci/testhost.py purge

.PHONY: test
test: lint test-unit test-integration test-community test-roles  ## everything: lint, unit, integration on the test host, Molecule

.PHONY: test-fast
test-fast: assets  ## lint of the Python and unit tests: an answer in a minute
	@ruff check . && ruff format --check .
	@$(PYTHON) -m pytest -q -m "not integration"

.PHONY: bootstrap
bootstrap:
	@ci/bootstrap test

.PHONY: lint
lint: bootstrap  ## every linter, no skips
	@ci/lint

.PHONY: test-unit
test-unit: assets  ## tests that need no database and no host (ROOM="agent lab" for some)
	@$(PYTHON) -m pytest -m "not integration" $(ROOM)

.PHONY: test-integration
test-integration: assets  ## the server against the PostgreSQL that the roles install
	@ci/integration

.PHONY: test-community
test-community: assets  ## the server against the community edition of TimescaleDB (in WebAssembly, from npm)
	@ci/community

.PHONY: test-roles
test-roles: bootstrap wheelhouse  ## Molecule: every role and the whole appliance (ROLE=name for one)
	@ci/molecule $(ROLE)

.PHONY: bench
SCALE := small
AGENT_BENCHES := decode fleet rtt outage
comma := ,
wanted = $(subst $(comma), ,$(ONLY))
bench: bench-tools  ## measure agent and server beside limits and peers, in one run (SCALE=full, ONLY=decode,ingest, KEEP=yes)
	@for bench in $(if $(ONLY),$(filter $(AGENT_BENCHES),$(wanted)),$(AGENT_BENCHES)); do \
	  PYTHONPATH=contract:agent:agent/bench:ci $(PYTHON) agent/bench/$$bench.py; done
	$(if $(and $(ONLY),$(if $(filter-out $(AGENT_BENCHES),$(wanted)),,none)),,@PYTHONPATH=contract:app:ci $(PYTHON) -m bench.run \
	  --scale $(SCALE) --only "$(subst $() ,$(comma),$(filter-out $(AGENT_BENCHES),$(wanted)))" $(if $(KEEP),--keep))

.PHONY: soak
soak: bench-tools  ## a thousand emulated routers: memory and open files of the agent must not grow (MINUTES=60)
	@PYTHONPATH=contract:agent:agent/bench:lab $(PYTHON) agent/bench/soak.py --minutes $(or $(MINUTES),60)

.PHONY: fuzz
fuzz: bench-tools  ## look for bytes that break the agent's decoder (MINUTES=10)
	@mkdir -p .cache/fuzz  # what it finds interesting goes here, not among the tests
	@PYTHONPATH=contract:agent:agent/tests .cache/bench/bin/python agent/bench/fuzz.py .cache/fuzz agent/tests/corpus \
	  -max_total_time=$$(($(or $(MINUTES),10) * 60)) -timeout=10 -rss_limit_mb=512

.PHONY: bench-tools
bench-tools: bootstrap
	@ci/bench-tools

.PHONY: wheelhouse
wheelhouse: bootstrap  ## build the wheels that hosts install from
	@$(PYTHON) ci/build.py

# a tag says v1.2.3, the file VERSION 1.2.3; `make release` refuses when the two differ
NUMBER = $(patsubst v%,%,$(or $(VERSION),$(file < VERSION)))
BUNDLE ?= dist/release/ispvm-$(NUMBER)
.PHONY: release
release: bootstrap  ## build VERSION (default: that of the file) as an unsigned tree and archive in dist/release
	@$(PYTHON) -m release.build --version "$(NUMBER)" $(if $(DEV),--dev)

.PHONY: gates
gates: bootstrap  ## look for known vulnerabilities, secrets and weak settings in an unsigned BUNDLE
	@$(PYTHON) -m release.gates vulnerabilities "$(BUNDLE)/sbom/ispvm.cdx.json"
	@$(PYTHON) -m release.gates secrets "$(BUNDLE)"
	@$(PYTHON) -m release.gates misconfiguration "$(BUNDLE)"

KEYS ?= .cache/release-keys
.PHONY: sign
sign: bootstrap  ## sign the release tree of VERSION with KEYS=DIR and pack it again; without KEYS, with a test key
	@[ -d "$(KEYS)" ] || $(PYTHON) -m release.sign keys --test "$(KEYS)"
	@$(PYTHON) -m release.sign "dist/release/ispvm-$(NUMBER)" --keys "$(KEYS)" --pack

.PHONY: reproduce
reproduce: bootstrap  ## build the release twice in ten different surroundings (EACH=1: once for each) and compare every byte
	@dpkg -s faketime >/dev/null 2>&1 || apt-get install -qq --yes faketime >/dev/null
	@$(PYTHON) -m release.build.reproduce $(if $(EACH),--each) $(if $(LEAK),--leak) $(if $(OWN),--own)

.PHONY: rebuild
rebuild:  ## build our own artefacts again from an unpacked BUNDLE alone, network off, and compare
	@unshare --net "$(BUNDLE)/rebuild"

.PHONY: airgap
airgap: bootstrap  ## install a signed BUNDLE (and NEWER, a path or pattern, over it) on a host without a way out, and count its packets
	@$(PYTHON) ci/airgap.py "$(BUNDLE)" $(if $(NEWER),--newer $(NEWER))

.PHONY: next-release
next-release: bootstrap  ## build and sign this commit once more as the next patch level, in dist/next, for NEWER of airgap
	@$(PYTHON) ci/next_release.py --keys "$(KEYS)"

.PHONY: agent-everywhere
agent-everywhere: bootstrap  ## the agent's one file and image of an unpacked BUNDLE poll emulated routers, on amd64 and emulated arm64
	@dpkg -s qemu-user-static >/dev/null 2>&1 || apt-get install -qq --yes --no-install-recommends qemu-user-static >/dev/null
	@PYTHONPATH=contract $(PYTHON) ci/agent_everywhere.py "$(BUNDLE)"

.PHONY: server-image
server-image: bootstrap  ## the server's image of an unpacked BUNDLE migrates the roles' database and serves, without a network
	@ISPVM_BUNDLE="$(BUNDLE)" ci/integration ci/tests/server_image.py

.PHONY: mutate
mutate: bootstrap  ## weaken the release verifiers in every way and see that the attack matrix notices
	@$(PYTHON) release/verify/tests/mutate.py

.PHONY: assets
assets: bootstrap  ## fetch the browser libraries (locked, from npm)
	@ci/assets

.PHONY: lock
lock: bootstrap  ## resolve requirements/*.txt again
	@ci/lock --upgrade
	@$(PYTHON) -m release.build.debian

.PHONY: docs
docs: bootstrap  ## regenerate what is generated: JSON Schemas, role READMEs, golden files
	@$(PYTHON) ci/generate.py

.PHONY: compat
compat: bootstrap  ## run the agent against the emulator in every RouterOS version; write docs/reference/compatibility-routeros.md
	@$(PYTHON) ci/compat.py

.PHONY: clean
clean:  ## remove what was built (not the demo)
	rm -rf .venv dist .cache/wheels .mypy_cache .ruff_cache .pytest_cache
