# Images and their supply chain. The Makefile includes this file; it also works alone: make -f k8s/images.mk TARGET.
TOOLS := build/tools

.PHONY: lock image-test audit-deps sbom

# Tools that look at the project and are no part of it: an environment of their own.
$(TOOLS): k8s/images.mk
	python3 -m venv $@
	$@/bin/pip install --quiet uv==0.13.9 pip-audit==2.10.1 cyclonedx-bom==7.5.0
	touch $@

# The images' dependencies, exact and with hashes, from .ci/constraints.txt and what pyproject.toml asks for.
# tensorflow-cpu is tensorflow without CUDA kernels; packages that ask for tensorflow are content with it.
UV := $(TOOLS)/bin/uv pip compile --quiet --custom-compile-command "make lock" --no-annotate --generate-hashes --constraint .ci/constraints.txt \
	--python-version 3.11 --python-platform x86_64-unknown-linux-gnu
# TensorFlow asks for libclang but only its build uses it.
UNUSED := --no-emit-package libclang
TENSORFLOW = $(shell sed -n 's/^tensorflow==//p' .ci/constraints.txt)

lock: $(TOOLS)  ## Write the images' dependencies, exact and with hashes, to .ci/requirements-*.lock
	echo "tensorflow-cpu==$(TENSORFLOW)" | $(UV) pyproject.toml - $(UNUSED) --no-emit-package tensorflow -o .ci/requirements-cpu.lock
	echo "tensorflow[and-cuda]==$(TENSORFLOW)" | $(UV) pyproject.toml - $(UNUSED) -o .ci/requirements-gpu.lock
	echo "setuptools>=77" | $(UV) - -o .ci/requirements-build.lock

# Builds Dockerfile.train and trains inside it: see the head of the script.
image-test:  ## Build both images with buildah and use them (root, Debian, 10 GB of disk)
	bash k8s/image-test.sh

# Known vulnerabilities of what the images install. --strict: a package that cannot be looked up is a failure, not a
# pass. Findings are triaged in docs/kubernetes.md.
audit-deps: $(TOOLS)  ## Look for known vulnerabilities in what the images install
	$(TOOLS)/bin/pip-audit --strict --disable-pip --require-hashes -r .ci/requirements-cpu.lock
	$(TOOLS)/bin/pip-audit --strict --disable-pip --require-hashes -r .ci/requirements-gpu.lock

# What is in the training image, as CycloneDX: Python packages with their hashes.
sbom: $(TOOLS)  ## Write what the training images hold to build/sbom-*.cdx.json (CycloneDX)
	$(TOOLS)/bin/cyclonedx-py requirements .ci/requirements-cpu.lock --pyproject pyproject.toml \
	  --output-reproducible -o build/sbom-train-cpu.cdx.json
	$(TOOLS)/bin/cyclonedx-py requirements .ci/requirements-gpu.lock --pyproject pyproject.toml \
	  --output-reproducible -o build/sbom-train-gpu.cdx.json
