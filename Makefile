# Everything that a person or CI runs. Needs python3 (3.11 or newer), make and git; the rest is installed into this folder
# and into the user's data folder.

UV := $(shell command -v uv 2>/dev/null || echo .tools/bin/uv)
RUN := $(UV) run --frozen --extra test --group dev
RUNTIMES := autogen langgraph crewai function local-model node
BENCH_ARGS ?=
# Processes that share the tests: one more than two processors, since many tests wait for others.
WORKERS ?= 3

# Without compiled files every Python process takes two to three times the processor time to start.
unexport PYTHONDONTWRITEBYTECODE

# What judges charts, from Go modules; tests of charts are skipped where it isn't there.
HELM := helm.sh/helm/v3/cmd/helm@v3.22.0
KUSTOMIZE := sigs.k8s.io/kustomize/kustomize/v5@v5.8.1
KUBECONFORM := github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0

.PHONY: help demo test check check-types check-rest bench bench-small bench-cluster soak docs format images runtimes sync chart-tools check-gke

help:
	@echo "make demo    everything on this machine: build the roster, start, apply 13,939 agents, call three of them"
	@echo "make test    the tests, with real frameworks"
	@echo "make check   style, types, layers, generated files, lock file"
	@echo "make bench   the figures, side by side with a plain server (about an hour); make bench-small for a fiftieth"
	@echo "make bench-cluster  scale and calls in the cluster of CHIMERA_TEST_KUBECONFIG, which nobody else may use meanwhile"
	@echo "make soak    the long fault tests; CHIMERA_TEST_SEED sets the seed"
	@echo "make images  images of hosts and of the platform, with buildah; BASE, REPOSITORY and VERSION name them"
	@echo "make docs    write the generated reference pages, the Helm chart and the kustomize base"
	@echo "make check-gke  validate deploy/gke with OpenTofu or Terraform, without the cloud; needs Go 1.25"
	@echo "make chart-tools  helm, kustomize and kubeconform into .tools/go, for the charts' tests; needs Go 1.26"

.tools/bin/uv:
	python3 -m venv .tools
	.tools/bin/pip install --quiet --disable-pip-version-check 'uv>=0.13,<1'

sync: $(filter .tools/bin/uv,$(UV))
	@$(UV) sync --frozen --quiet --extra test --group dev

runtimes: sync
	@$(RUN) chimera runtime install $(RUNTIMES)

demo: $(filter .tools/bin/uv,$(UV))
	@test -d .venv || echo "The first run downloads about 310 MB in all: uv and Chimera's own packages (90 MB), frameworks and the bundled model."
	@$(UV) sync --frozen --quiet --inexact --no-default-groups
	@$(UV) run --frozen --no-sync python -m examples.demo

test: runtimes
	$(RUN) pytest -n $(WORKERS)

# Types take as long as all else together.
check: sync
	@$(MAKE) --no-print-directory -j 2 check-types check-rest

check-types:
	$(RUN) mypy

check-rest:
	$(UV) lock --check
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) lint-imports
	$(RUN) python -m docs.generate --check

bench: runtimes
	$(RUN) python -m benchmarks $(BENCH_ARGS)

bench-small: runtimes
	$(RUN) python -m benchmarks --scale 50 --runs 1 --no-beside

bench-cluster: sync
	PATH="$(CURDIR)/.tools/bin:$$PATH" $(RUN) python -m benchmarks.cluster $(BENCH_ARGS)

soak: runtimes
	CHIMERA_TEST_KILLS=200 $(RUN) pytest tests/integration/storage tests/integration/backup -k kill
	CHIMERA_TEST_KILLS=200 $(RUN) pytest -s tests/integration/delivery/kills
	CHIMERA_TEST_KILLS=200 CHIMERA_TEST_AWAY=300 $(RUN) pytest tests/acceptance/platform/faults
	CHIMERA_TEST_KILLS=50 $(RUN) pytest tests/integration/events
	CHIMERA_TEST_REQUESTS=20000 $(RUN) pytest tests/integration/api tests/acceptance/platform -k malformed
	CHIMERA_TEST_DECISIONS=100000 $(RUN) pytest tests/property/gateway/test_policy_agreement.py
	CHIMERA_TEST_AGENTS=all CHIMERA_TEST_CALLED=1000 CHIMERA_TEST_SLEEP=1 $(RUN) pytest -s tests/acceptance/platform/test_end_to_end.py

images: $(filter .tools/bin/uv,$(UV))
	deploy/images/build

chart-tools: .tools/go/helm .tools/go/kustomize .tools/go/kubeconform

.tools/go/helm .tools/go/kustomize .tools/go/kubeconform:
	GOBIN=$(CURDIR)/.tools/go GOFLAGS=-buildvcs=false nice go install $($(shell echo $(@F) | tr a-z A-Z))

# The provider that has the real one's schema and nothing behind it (deploy/gke/README.md).
.tools/go/terraform-provider-google: deploy/gke/check/provider/main.go deploy/gke/check/provider/go.sum
	cd deploy/gke/check/provider && nice go build -buildvcs=false -o $(CURDIR)/$@ .

check-gke: sync .tools/go/terraform-provider-google
	$(RUN) pytest tests/unit/deploy/test_gke.py

docs: sync
	$(RUN) python -m docs.generate

format: sync
	$(RUN) ruff check --fix .
	$(RUN) ruff format .
