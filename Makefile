# Everything that a developer runs. `make` lists the targets. Each one makes the environment it needs.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
BUILD  := .venv-build
DOCS   := .venv-docs
CLIENTS := .venv-clients
INTEROP := .venv-interop
BROWSER := .venv-browser
BATCH  := .venv-batch
TRITON := .venv-triton
LABEL_STUDIO := .venv-label-studio
CVAT   := .venv-cvat
# The Pythons of `make pythons`, as uv names them: a version, or a path.
PYTHONS ?= 3.10 3.11 3.12 3.13 3.14
CHROMIUM := /usr/bin/chromium
# Node's packages: the type checker, and the engine of the browser.
WEB    := serving/web
OUT    := out
# Processes of `make test`; each uses one core. An idle one takes tests from the others.
WORKERS ?= 2
# CMake options for test-cpp and check-cpp, to build and test more backends (docs/embedding.md).
CPP_OPTIONS ?=
FULL   := $(OUT)/bench-full
# sam2 is a source distribution. pip would build it in an isolated environment with a second copy of
# torch, which takes gigabytes and is not needed. So pip builds without isolation, with these tools.
BUILD_TOOLS := hatchling 'setuptools>=70.1'
BUILTIN := runtime/glesam_runtime/nano
BUILTIN_WEIGHTS := export/glesam_export
# Boxes of eight coins in the demo's photograph.
COINS   := --box 132,28,179,74 --box 192,30,240,73 --box 305,16,365,72 --box 245,95,296,144 \
	--box 84,108,122,145 --box 315,156,380,218 --box 80,175,124,217 --box 18,233,75,288

.DEFAULT_GOAL := help
# Engine of `make bench-serve`, and a full-size bundle for it if you have one.
SERVE_BUNDLE ?=

# Every target with a help text is a command, not a file.
.PHONY: $(shell sed -n 's/^\([a-z0-9-]*\):.*\#\#.*/\1/p' $(firstword $(MAKEFILE_LIST)))

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  \033[36m%-17s\033[0m %s\n", $$1, $$2}' Makefile

setup: $(READY)  ## Make the environment in .venv (about 6 GB, most of it torch)

$(READY): pyproject.toml runtime/pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -q $(BUILD_TOOLS)
	SAM2_BUILD_CUDA=0 $(BIN)/pip install --disable-pip-version-check -q --no-build-isolation \
		-c constraints.txt -e ./runtime -e '.[dev]'
	@touch $@

demo: $(READY)  ## Export nano, segment a photograph clear and degraded, print the accuracy table
	@mkdir -p $(OUT)/demo
	$(BIN)/glesam-export onnx --preset nano -o $(OUT)/demo/bundle
	@$(BIN)/python -c "import shutil, skimage, pathlib; shutil.copy(pathlib.Path(skimage.__file__).parent / 'data/coins.png', '$(OUT)/demo/coins.png')"
	$(BIN)/glesam-degrade $(OUT)/demo/coins.png --level 3 --seed 7 -o $(OUT)/demo/coins_lq3.png
	$(BIN)/glesam-run $(OUT)/demo/coins.png $(OUT)/demo/coins_lq3.png $(COINS) --bundle $(OUT)/demo/bundle -o $(OUT)/demo
	$(BIN)/glesam-run $(OUT)/demo/coins_lq3.png $(COINS) --no-enhance --bundle $(OUT)/demo/bundle -o $(OUT)/demo/plain
	@$(BIN)/python docs/make_demo_picture.py $(OUT)/demo $(OUT)/demo/demo.jpg

test: $(READY)  ## Run the fast tests in WORKERS processes
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(WORKERS) --dist worksteal --durations=25

test-attacks: $(READY)  ## Run the first list of hostile inputs in WORKERS processes (90 seconds)
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -m 'attack and not second' -n $(WORKERS) --dist worksteal tests/attacks

check-attacks: $(READY)  ## Run both lists of hostile inputs in WORKERS processes (three minutes)
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -m attack -n $(WORKERS) --dist worksteal tests/attacks

serve: $(READY)  ## Serve the built-in model at http://127.0.0.1:8000, with a page to click on
	$(BIN)/glesam-serve

test-serving: $(READY)  ## Test the server under load and under attack (three minutes)
	$(BIN)/pytest -q -m serving -rP tests/serving

$(BROWSER)/.ready: pyproject.toml runtime/pyproject.toml
	$(PYTHON) -m venv $(BROWSER)
	$(BROWSER)/bin/pip install --disable-pip-version-check -q -c constraints.txt -e './runtime[cpu]' -e '.[serve]' \
		hypothesis opencv-python-headless playwright pycocotools pytest scipy
	@touch $@

# Playwright's own browsers are not downloaded; the tests use the system's.
$(CHROMIUM):
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -q && apt-get install -q -y --no-install-recommends chromium; \
	else echo "error: $@ is missing; install it, for example with: sudo apt-get install chromium" >&2; exit 1; fi

# The lock file holds no addresses: npm asks the registry that it is configured for.
$(WEB)/node_modules/.ready: $(WEB)/package.json $(WEB)/package-lock.json
	npm ci --prefix $(WEB) --ignore-scripts --no-audit --no-fund
	@touch $@

test-web: $(READY) $(WEB)/node_modules/.ready  ## Check the page's modules: types, and their numbers in Node
	$(WEB)/node_modules/.bin/tsc -p $(WEB)
	OMP_NUM_THREADS=1 $(BIN)/pytest -q tests/web tests/serving/test_page_modules.py

# PyTorch exports these bundles, which the environment of the browser's tests does not have.
$(OUT)/browser-bundles/.ready: $(READY) $(shell git ls-files export/glesam_export calibration/glesam_calibration)
	rm -rf $(@D) && mkdir -p $(@D)
	$(BIN)/glesam-export onnx --preset nano --fp16 -o $(@D)/nano-fp16
	$(BIN)/glesam-calibrate nano --int8 --samples 16 -o $(@D)/nano-int8
	$(BIN)/glesam-export onnx --preset nano2 -o $(@D)/nano2
	@touch $@

test-browser: $(BROWSER)/.ready $(OUT)/browser-bundles/.ready $(WEB)/node_modules/.ready | $(CHROMIUM)  ## Test the page in Chromium (five minutes)
	$(BROWSER)/bin/pytest -q --durations=5 tests/browser

# s3fs needs another python-dateutil than constraints.txt has. With the constraints, pip searches for
# ten minutes, and then installs an s3fs of 2018.
$(BATCH)/.ready: pyproject.toml runtime/pyproject.toml
	$(PYTHON) -m venv $(BATCH)
	$(BATCH)/bin/pip install --disable-pip-version-check -q -c constraints.txt -e './runtime[cpu]' -e '.[batch]' \
		hypothesis psutil pycocotools pytest 'ray[data]==2.60.*'
	$(BATCH)/bin/pip install --disable-pip-version-check -q s3fs==2026.9.0
	@touch $@

# GLESAM_KILLS is the number of seeds of kills of a node and the driver of three nodes.
test-batch: $(BATCH)/.ready  ## Test glesam-batch on Ray, with workers, nodes and drivers killed (ten minutes)
	$(BATCH)/bin/python -m pytest -q tests/batch

bench-batch: $(BATCH)/.ready  ## Compare glesam-batch to glesam-run --streams on 2,000 pictures (ten minutes)
	$(BATCH)/bin/python -m tests.studies.batch

bench-scale: $(BATCH)/.ready  ## Measure glesam-batch on 1 to 16 actors and over 100,000 rows with an engine that sleeps (a quarter of an hour)
	$(BATCH)/bin/python -m tests.studies.scale

# The server's Python backend needs NumPy below 2.
$(TRITON)/.ready: pyproject.toml runtime/pyproject.toml
	$(PYTHON) -m venv $(TRITON)
	$(TRITON)/bin/pip install --disable-pip-version-check -q -e ./runtime -e . \
		hypothesis 'numpy<2' nvidia-pytriton==0.7.* onnx onnxruntime==1.32.* pytest 'tritonclient[grpc,http]'
	@touch $@

test-triton: $(TRITON)/.ready  ## Load a model repository in the Triton of nvidia-pytriton, and compare masks (two minutes)
	$(TRITON)/bin/python -m pytest -q tests/triton

page-picture: $(BROWSER)/.ready $(WEB)/node_modules/.ready | $(CHROMIUM)  ## Take the pictures of the page
	$(BROWSER)/bin/python docs/make_page_picture.py docs/images/page.jpg
	$(BROWSER)/bin/python docs/make_browser_picture.py docs/images/browser.jpg

bench-serve: $(READY)  ## Compare the server to a loop over the predictor; SERVE_BUNDLE=DIR runs another model
	$(BIN)/python -m tests.studies.serving $(SERVE_BUNDLE)

bench-browser: $(BROWSER)/.ready $(WEB)/node_modules/.ready | $(CHROMIUM)  ## Compare the browser to the server and the command; SERVE_BUNDLE=DIR measures its decoder
	$(BROWSER)/bin/python -m tests.studies.browser $(SERVE_BUNDLE)

test-export: $(READY)  ## Export ViT-B with SD 2.1 at full size and check its accuracy gates (10 GB of disk)
	$(BIN)/pytest -q -m full -rP tests/full/test_full_export.py::test_fp32_passes_its_gates_within_memory

test-readme: $(READY)  ## Run the command blocks of README as printed
	$(BIN)/pytest -q -m readme -rs tests/docs -k README.md

test-pages: $(READY)  ## Run the command blocks of README and all pages as printed
	$(BIN)/pytest -q -m readme -rs tests/docs

test-full: $(READY)  ## Run all full-size tests: export ViT-B and Hiera-T with SD 2.1, compile engines (13 GB of disk)
	$(BIN)/pytest -q -m full -rP --ignore tests/full/test_distributions.py

$(BUILD)/.ready:
	$(PYTHON) -m venv $(BUILD)
	$(BUILD)/bin/pip install --disable-pip-version-check -q build twine
	@touch $@

dist: $(READY) $(BUILD)/.ready  ## Build both distributions in out/dist, and check them in clean environments
	rm -rf $(OUT)/dist
	$(BUILD)/bin/python -m build -o $(OUT)/dist runtime >/dev/null
	$(BUILD)/bin/python -m build -o $(OUT)/dist . >/dev/null
	$(BUILD)/bin/twine check --strict $(OUT)/dist/*
	$(BIN)/pytest -q -m full -rP tests/full/test_distributions.py

pythons: $(BUILD)/.ready  ## Install the wheels of make dist under each of PYTHONS with uv, and run the demo
	$(BUILD)/bin/pip install --disable-pip-version-check -q uv
	$(PYTHON) tests/studies/pythons.py $(BUILD)/bin/uv $(OUT)/dist $(OUT)/pythons $(PYTHONS)

test-cpp: $(READY)  ## Build the C++ library and test it
	runtime/cpp/check.sh $(BIN)/python $(OUT) $(CPP_OPTIONS)

test-gstreamer: $(READY)  ## Build the GStreamer element and compare it with Python; replug it under a sanitizer (five minutes)
	runtime/cpp/gstreamer/check.sh $(BIN)/python $(OUT)

# This environment sees the packages of .venv, torch among them, through a .pth file.
$(CLIENTS)/.ready: $(READY) tests/clients/requirements.txt
	$(BIN)/python -m venv --clear $(CLIENTS)
	$(BIN)/python -c "import sysconfig as s; print('import site; site.addsitedir(%r)' % s.get_path('purelib'))" \
		> "$$($(CLIENTS)/bin/python -c 'import sysconfig as s; print(s.get_path("purelib"))')/packages-of-venv.pth"
	$(CLIENTS)/bin/pip install --disable-pip-version-check -q --no-deps -r tests/clients/requirements.txt
	@touch $@

test-clients: $(CLIENTS)/.ready  ## Run supervision, autodistill, samgeo and segment_anything's generator on our predictor
	OMP_NUM_THREADS=1 $(CLIENTS)/bin/python -m pytest -q -m clients tests/clients

# X-AnyLabeling's package has the name of AnyLabeling's, so it lies in a folder of its own.
$(INTEROP)/.ready: $(READY) tests/interop/requirements.txt
	$(BIN)/python -m venv --clear $(INTEROP)
	$(BIN)/python -c "import sysconfig as s; print('import site; site.addsitedir(%r)' % s.get_path('purelib'))" \
		> "$$($(INTEROP)/bin/python -c 'import sysconfig as s; print(s.get_path("purelib"))')/packages-of-venv.pth"
	$(INTEROP)/bin/pip install --disable-pip-version-check -q --no-deps -r tests/interop/requirements.txt
	$(INTEROP)/bin/pip install --disable-pip-version-check -q --no-deps --target $(INTEROP)/x-anylabeling x-anylabeling-cvhub==4.2.1
	@touch $@

test-interop: $(INTEROP)/.ready  ## Run annotation tools' own classes on the files of `glesam-export interop` (two minutes)
	OMP_NUM_THREADS=1 $(INTEROP)/bin/python -m pytest -q -m interop -rP tests/interop
# Label Studio pins packages that .venv has in other versions, so it has an environment of its own.
$(LABEL_STUDIO)/.ready: tests/label_studio/requirements.txt
	$(PYTHON) -m venv --clear $(LABEL_STUDIO)
	$(LABEL_STUDIO)/bin/pip install --disable-pip-version-check -q -r tests/label_studio/requirements.txt
	@touch $@

test-label-studio: $(READY) $(LABEL_STUDIO)/.ready  ## Annotate in Label Studio with the backend in examples (1 GB of disk, three minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m clients tests/label_studio

$(CVAT)/.ready: tests/cvat/requirements.txt pyproject.toml runtime/pyproject.toml
	$(PYTHON) -m venv --clear $(CVAT)
	$(CVAT)/bin/pip install --disable-pip-version-check -q -c constraints.txt -e './runtime[cpu]' -e '.[serve]' \
		-r tests/cvat/requirements.txt hypothesis pytest
	@touch $@

test-cvat: $(CVAT)/.ready  ## Segment with CVAT's own agent and Nuclio's SDK through examples/cvat (two minutes)
	OMP_NUM_THREADS=1 $(CVAT)/bin/python -m pytest -q -m clients tests/cvat

test-cpp-ports: $(READY)  ## Build the C++ library with clang, for 64-bit ARM and for Windows, and run its unit tests there
	runtime/cpp/ports.sh $(OUT)

build-tensorrt: $(READY)  ## Compile the C++ library against NVIDIA's headers (TENSORRT_INCLUDE=DIR, which has NvInfer.h)
	@test -n "$(TENSORRT_INCLUDE)" || { echo "error: TENSORRT_INCLUDE: name the folder with NvInfer.h" >&2; exit 2; }
	$(BIN)/pip install --disable-pip-version-check -q --upgrade --no-deps --target $(OUT)/cuda-headers 'nvidia-cuda-runtime==13.*' 'nvidia-cuda-crt==13.*'
	cmake -S runtime/cpp -B $(OUT)/cpp-tensorrt -G Ninja -DGLESAM_WERROR=ON -DGLESAM_TENSORRT=ON -DGLESAM_TOOLS=OFF \
		-DTensorRT_INCLUDE_DIR=$(abspath $(TENSORRT_INCLUDE)) -DCUDART_INCLUDE_DIR=$(abspath $(OUT))/cuda-headers/nvidia/cu13/include
	cmake --build $(OUT)/cpp-tensorrt

check-cpp: $(READY)  ## Test the C++ library as test-cpp does, then under sanitizers, then fuzz it for five minutes
	runtime/cpp/check.sh --all $(BIN)/python $(OUT) $(CPP_OPTIONS)

check:  ## Run every check, and print the seconds that each takes
	.ci/timed "$(MAKE) lint" "$(MAKE) test" "$(MAKE) check-attacks" "$(MAKE) test-serving" "$(MAKE) test-web" "$(MAKE) test-browser" "GLESAM_KILLS=20 $(MAKE) test-batch" "$(MAKE) test-triton" "$(MAKE) test-clients" "$(MAKE) test-label-studio" "$(MAKE) test-cvat" "$(MAKE) test-interop" "$(MAKE) gpu-dry" "$(MAKE) check-cpp" "$(MAKE) test-gstreamer" "$(MAKE) dist" "$(MAKE) docs" "$(MAKE) test-pages" "$(MAKE) test-full"

lint: $(READY)  ## Check style, import walls and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy runtime/glesam_runtime evaluation/glesam_evaluation calibration/glesam_calibration export/glesam_export benchmark/glesam_benchmark training/glesam_training serving/glesam_serving examples/label_studio examples/cvat

format: $(READY)  ## Format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(READY)  ## Measure the cold start of glesam-run against `import torch`
	$(BIN)/python tests/studies/cold_start.py $(BIN)/glesam-run $(BIN)/python

bench-many: $(READY)  ## Measure images per minute: one at a time, overlapped, two streams (ten minutes)
	$(BIN)/python tests/studies/many_images.py $(BIN)/glesam-run

bench-follow: $(READY)  ## Measure following objects through procedural videos, for docs/video.md (five minutes)
	$(BIN)/python -m tests.studies.follow

bench-cpp: $(READY)  ## Compare C++ with Python at full size, in bfloat16 (run make test-cpp first; 9 GB, 10 minutes)
	$(BIN)/python -m tests.studies.cpp $(OUT)/cpp $(OUT)/bench-cpp

# Export again when the exporter has changed.
$(FULL)/bundle/manifest.json: $(READY) $(shell git ls-files export/glesam_export)
	$(BIN)/glesam-export onnx --preset sam_vit_b --random-weights 0 --bf16 -o $(FULL)/bf16
	$(BIN)/glesam-export onnx --preset sam_vit_b --random-weights 0 -o $(FULL)/bundle

bench-full: $(FULL)/bundle/manifest.json  ## Compare ViT-B with SD 2.1 to PyTorch and plain exports (half an hour, 12 GB)
	$(BIN)/glesam-bench $(FULL)/bundle --random-weights 0 --peers --backend openvino:bf16 --backend onnxruntime \
		--backend openvino --variant $(FULL)/bf16 --rounds 5 --work $(FULL)/plain -o $(FULL)
	$(BIN)/glesam-bench growth $(FULL)/bundle --backend openvino:bf16 --rounds 2 -o $(FULL)
	$(BIN)/glesam-bench profile $(FULL)/bundle --backend openvino:bf16 --backend onnxruntime --rounds 3 -o $(FULL)

gpu: $(READY)  ## Collect what a GPU machine needs to measure everything, in pieces below 60 MB (0.3 GB)
	$(BIN)/python -m glesam_benchmark.gpu.pack $(OUT)/gpu

gpu-dry: $(READY)  ## Run the GPU measurement with nano on the CPU, to test it
	$(BIN)/pytest -q -m gpu_dry -rP tests/benchmark/test_gpu_dry_run.py

gpu-page: $(READY)  ## Fill docs/gpu.md with the figures of docs/gpu.json
	$(BIN)/python -m glesam_benchmark.gpu.page docs/gpu.json docs/gpu.md

nano: $(READY)  ## Train nano from scratch (a quarter of an hour on an H100, over five hours on two cores) and measure it
	$(BIN)/glesam-train nano -o $(OUT)/nano

nano2: $(READY)  ## Train nano2, a SAM 2 of nano's size that starts from nano, and measure it (two hours on two cores)
	$(BIN)/glesam-train nano --preset nano2 -o $(OUT)/nano2

nano-table: $(READY)  ## Measure the paper's Table 5 at nano's size, with three seeds (run make nano first)
	$(BIN)/glesam-train nano-table -o $(OUT)/nano

builtin: $(READY)  ## Replace what ships by what make nano and make nano2 trained: the checkpoints and nano's bundle
	@for name in nano nano2; do if [ -f $(OUT)/$$name/$$name.safetensors ]; then \
		cp $(OUT)/$$name/$$name.safetensors $(BUILTIN_WEIGHTS); fi; done
	$(BIN)/glesam-export onnx --preset nano --verify full -o $(BUILTIN)

backbones: $(READY)  ## Export and run every backbone at full size, for docs/backbones.md (an hour)
	$(BIN)/python -m tests.studies.backbones $(OUT)/backbones docs/backbones.md

precision: $(READY)  ## Measure fp16 and bf16 of every preset, for docs/precision.md (two hours)
	$(BIN)/python -m tests.studies.precision $(OUT)/precision docs/precision.md

quantization: $(READY)  ## Measure eight bits on nano by every method, for docs/quantization.md (ten minutes)
	$(BIN)/python -m tests.studies.quantization $(OUT)/quantization docs/quantization.md

gate-table: $(READY)  ## Measure what a gate saves and costs on nano, for docs/gate.md (half an hour)
	$(BIN)/python -m tests.studies.gate measure $(OUT)/gate
	$(BIN)/python -m tests.studies.gate page $(OUT)/gate docs/gate.md

quantization-full: $(READY)  ## Calibrate ViT-B with SD 2.1, check that it needs less than 10 GB of memory, and time it (half an hour)
	$(BIN)/python -m tests.studies.quantization_full $(OUT)/quantization-full
	$(BIN)/python -m tests.studies.eight_bits_full $(OUT)/quantization-full/bundle $(OUT)/quantization-full/int8

large: $(READY)  ## Segment a scene of 8,192 x 8,192 in tiles and in one look, for docs/large.md (half an hour)
	$(BIN)/python -m tests.studies.large $(OUT)/large

inputs: $(READY)  ## Measure nano with the inputs of SAM and of the released GleSAM, for docs/released-input.md (ten minutes)
	$(BIN)/python -m tests.studies.inputs

recipes: $(READY)  ## Draw the distributions of the released LQSeg recipe, for docs/degradations.md (a minute)
	$(BIN)/python -m tests.studies.recipes docs/images/recipes.png

# Building the site imports the runtime and the commands, but not torch.
$(DOCS)/.ready: pyproject.toml runtime/pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/pip install --disable-pip-version-check -q -c constraints.txt -e ./runtime -e '.[docs]'
	@touch $@

docs: $(DOCS)/.ready  ## Build the documentation site in out/site
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict -q -d $(OUT)/site
	@echo "$(OUT)/site/index.html"

schema: $(READY)  ## Generate docs/*.schema.json
	$(BIN)/python docs/make_schemas.py

pictures: demo  ## Draw the pictures of README and docs/degradations.md
	$(BIN)/python docs/make_degradations_picture.py
	$(BIN)/python docs/make_demo_picture.py $(OUT)/demo docs/images/demo.jpg

figures: $(READY)  ## Draw the figures of docs/evaluation.md on nano, and IoU over gamma (an hour on two cores)
	$(BIN)/glesam-evaluate nano scenes:24@900000000 --figures -o $(OUT)/figures
	$(BIN)/glesam-train ablate gamma -o $(OUT)/ablation

ablations: $(READY)  ## Train every row of the paper's Tables 4, 6, 8 and Fig. 6 on nano, with three seeds (two hours)
	for kind in parts recipe input rank levels gamma; do \
		$(BIN)/glesam-train ablate $$kind --seeds 3 -o $(OUT)/ablation || exit; done

clean:  ## Remove environments and outputs
	rm -rf $(VENV) $(BUILD) $(DOCS) $(CLIENTS) $(INTEROP) $(BROWSER) $(BATCH) $(TRITON) $(WEB)/node_modules $(LABEL_STUDIO) $(CVAT) $(OUT)
