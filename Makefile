# One target a job, each a thin line over the plain tool. `make help` lists them.

PYTHON ?= python3
BIN := .venv/bin
VERSION ?= 1.0
# Shipped versions have a folder in training/pretrained; any other is made of what was trained here.
WEIGHTS ?= $(firstword $(wildcard training/pretrained/$(VERSION)/best_cnn_model.pth) artifacts/best_cnn_model.pth)

ARCHIVE := model_store/cifar-$(VERSION).mar
HANDLER := $(wildcard handler/*.*)
# The shipped weights have passed the gate that was theirs; the one in params.yaml is for what is trained with it.
UNGATED := $(if $(filter training/pretrained/%,$(WEIGHTS)),--no-gate)

# Two makes at once: what one installs or builds, the other waits for, and then finds done. Any Python will do as the
# lock, which is this file; it is let go at the end of the command, and no server inherits it.
define ALONE
$(firstword $(wildcard $(BIN)/python) $(PYTHON)) -c 'import fcntl, subprocess, sys; lock = open("Makefile"); \
	fcntl.flock(lock, fcntl.LOCK_EX); sys.exit(subprocess.call(["sh", "-ec", sys.argv[1]]))'
endef
# Whether the target has become newer than what it is made of, since make looked.
DONE = test -e $@ && test -z "$$(find $^ -newer $@)"
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.DEFAULT_GOAL := help
.PHONY: help up monitor down archive build data train card accuracy fuzz bench drift drill deploys alerts dashboards pictures docs test test-fast check lock

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# What was deployed is served again, unless a version is asked for.
DEPLOYED := $(if $(filter file,$(origin VERSION)),$(wildcard model_store/serving.json))

up: .venv/.serving $(if $(DEPLOYED),,$(ARCHIVE)) ## Set up, start TorchServe with what was deployed, or VERSION (1.0, 2.0); ten predictions
	@$(BIN)/cifar up $(if $(DEPLOYED),,cifar=$(notdir $(ARCHIVE)))
	@$(BIN)/cifar predict

monitor: .venv/.serving ## Start Prometheus and Alertmanager beside it; again: they reload their files
	@$(BIN)/cifar monitor

down: ## Stop TorchServe and remove what it made at run time; stop the monitor
	@if [ -x $(BIN)/cifar ]; then $(BIN)/cifar down; else echo "Nothing is installed here, so nothing runs."; fi

archive: $(ARCHIVE) ## Build model_store/cifar-VERSION.mar from WEIGHTS

$(ARCHIVE): $(wildcard $(WEIGHTS) $(dir $(WEIGHTS))*.json) $(HANDLER) cifar/archives/build.py training/export.py training/model.py | .venv/.serving
	@$(ALONE) '$(DONE) || $(MAKE) --no-print-directory build VERSION=$(VERSION) WEIGHTS=$(WEIGHTS)'

build:
	$(BIN)/python -m training.export $(UNGATED) archive.version=$(VERSION) --weights $(WEIGHTS) --output artifacts/$(VERSION)/model.pt
	$(BIN)/cifar archive artifacts/$(VERSION)/model.pt --version $(VERSION) --handler handler --output $(ARCHIVE)

data: .venv/.training ## Download CIFAR-10 (170 MB) and write data/cifar10.npz
	$(BIN)/python -m training.data

train: .venv/.training ## Run the pipeline, with PRESET=wide if given: prepare, train, evaluate, export, register, archive
	$(if $(PRESET),$(BIN)/python -m training.preset $(PRESET))
	PATH="$(CURDIR)/$(BIN):$$PATH" dvc repro

card: .venv/.training ## Write training/pretrained/MODEL_CARD.md from the figures of the shipped weights
	$(BIN)/python -m training.model_card

accuracy: ## Send the test images through the running server and compare with the training code
	$(BIN)/python -m benchmarks.served_accuracy --weights $(WEIGHTS)

fuzz: .venv/.dev ## Send 20,000 mutated bodies to the running server (make up), then a minute of atheris on the decoder
	$(BIN)/python -m benchmarks.fuzz_server --requests 20000
	$(BIN)/python -m pip install --quiet --disable-pip-version-check atheris==3.0.0
	$(BIN)/python -m benchmarks.fuzz_decoder --seconds 60

bench: .venv/.training $(ARCHIVE) ## Measure decoding, what counting costs (needs wrk), and training; writes the tables in benchmarks/results
	$(BIN)/python -m benchmarks.decoding
	$(BIN)/python -m benchmarks.telemetry
	$(BIN)/python -m benchmarks.training

drift: .venv/.training ## Measure false alarms and delays of the drift alerts (needs make data); writes the table in benchmarks/results
	$(BIN)/python -m benchmarks.drift

drill: .venv/.training $(ARCHIVE) ## Inject nine faults into a service of its own and see which alerts come (needs make data); writes docs/drill.md
	$(BIN)/python -m drill

deploys: .venv/.training $(ARCHIVE) ## Ten deployments and rollbacks under load, on a server of its own; writes the table in benchmarks/results
	$(BIN)/python -m benchmarks.deploys

alerts: .venv/.serving ## Write alerts/budget.yaml and input_drift.yaml from alerts/build.py
	$(BIN)/python -m alerts.build

dashboards: .venv/.dev ## Write grafana/dashboards from grafana/*.py
	$(BIN)/python -m grafana.build

pictures: .venv/.dev ## Plot the dashboards of a scenario of twelve minutes (needs make data and prometheus); writes docs/pictures
	@$(MAKE) archive VERSION=1.0
	@$(MAKE) archive VERSION=2.0
	$(BIN)/python -m benchmarks.dashboards

test: .venv/.dev .venv/.kserve ## Set up what the tests need and run all of them
	$(BIN)/python -m pytest -n 2 --dist loadfile

docs: .venv/.dev ## Build the documentation site: site/index.html
	$(BIN)/zensical build --clean --strict

test-fast: .venv/.dev ## The 1,800 quick tests that start no server: about a minute
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not server and not slow"

check: .venv/.dev ## ruff, formatting, layers, mypy, spelling, documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/zensical build --clean --strict

lock: .venv/.dev ## Write constraints.txt from what is installed
	$(BIN)/python -m pip freeze --exclude-editable | grep -vE '^(atheris|torch|torchvision|triton|nvidia-.*|cuda-.*)==' > constraints.txt

# Each stamp says: the virtual environment has these groups of pyproject.toml. PIP_EXTRA_INDEX_URL and other settings of
# pip work as always (docs/install.md).
.venv/.serving: pyproject.toml constraints.txt | .venv/bin/python
	@$(ALONE) '$(DONE) || { echo "Installing what serving needs…"; $(PIP_INSTALL) .; touch $@; }'

.venv/.training: .venv/.serving
	@$(ALONE) '$(DONE) || { echo "Installing what training needs…"; $(PIP_INSTALL) ".[training]"; touch $@; }'

.venv/.dev: .venv/.training
	@$(ALONE) '$(DONE) || { echo "Installing what development needs…"; $(PIP_INSTALL) ".[training,dev]"; touch $@; }'

# KServe's client, for its test: its pins contradict ours, so that it gets an environment of its own.
.venv/.kserve: tests/e2e/kserve.txt | .venv/bin/python
	@echo "Installing KServe's client…"
	$(PYTHON) -m venv .venv/kserve
	.venv/kserve/bin/python -m pip install --quiet --disable-pip-version-check --requirement tests/e2e/kserve.txt
	@touch $@

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; this is " + sys.version.split()[0] + ". Name another: make PYTHON=python3.11 …")'
	@$(ALONE) 'test -x $(BIN)/pip || $(PYTHON) -m venv .venv'
