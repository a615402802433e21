PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := build/demo
CHECKED := planner tests benchmarks notebooks docs

.PHONY: demo example-photos test test-slow docs profile model bench bench-accuracy bench-c bench-importance bench-latency bench-many-classes bench-memory bench-rivals bench-runtime bench-solve bench-solve-plots bench-truth notebooks clean

# The main job: a fleet and a trained ViT in; a plan, sub-models, their accuracy, and a rehearsal of the fleet out.
demo: $(VENV)/.ready
	rm -rf $(DEMO)
	$(BIN)/planner solve --devices examples/devices.json --out $(DEMO)/plan.json
	$(BIN)/planner execute $(DEMO)/plan.json --out $(DEMO)/bundle
	$(BIN)/planner evaluate $(DEMO)/bundle --devices examples/devices.json
	$(BIN)/planner rehearse $(DEMO)/bundle --devices examples/devices.json --out $(DEMO)/rehearsal.json

# A pretrained ViT and photographs on Linux boards: examples/photos/README.md says what MODEL and PHOTOS must hold.
FLEET := four-pis
example-photos: $(VENV)/.ready
	$(BIN)/python examples/photos/run.py --fleet "$(FLEET)" $(if $(MODEL),--model "$(MODEL)") \
		$(if $(PHOTOS),--photos "$(PHOTOS)") $(if $(MINUTES),--minutes "$(MINUTES)")

test: $(VENV)/.ready-dev
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/mypy
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# The notebooks executed anew and stored with their outputs and pictures (a minute or two; needs Chromium).
notebooks: $(VENV)/.ready-dev
	$(BIN)/python -m notebooks.build

# What takes too long for every change: the shipped model trained again.
test-slow: $(VENV)/.ready-dev
	$(BIN)/pytest -m slow

# docs/formats.md, from the schemas; docs/timeline.png, from the demo's plan.
docs: $(VENV)/.ready-report
	$(BIN)/python docs/formats.py
	$(BIN)/python docs/figures.py

# The demo's plan and the baselines, a table under docs/ (some six minutes).
bench: $(VENV)/.ready
	$(BIN)/python benchmarks/baselines.py

# Are sub-models as good as the whole, and as DeViT's and ED-ViT's way? docs/accuracy.md (some three hours on two
# cores; goes on where it was stopped). Whole models and results are kept under $PLANNER_CACHE or the user's cache
# folder; Fashion-MNIST and CIFAR-10 are read from $PLANNER_DATA or ../shared/data, and left out where they are not.
bench-accuracy: $(VENV)/.ready-dev
	$(BIN)/python -m benchmarks.accuracy

# Peak memory of sub-models in ONNX Runtime, predicted beside measured: docs/memory.md (some ten minutes).
bench-memory: $(VENV)/.ready-dev
	$(BIN)/python -m benchmarks.memory

# Peak memory and processor time of profile, solve and execute with 1,000 classes at 224 pixels, and what each image adds
# (long: four minutes of one core for 27 classes, 648 images and `BLOCKS=1`; the whole has not been run).
BLOCKS := 12
bench-many-classes: $(VENV)/.ready-dev
	$(BIN)/python -m benchmarks.many_classes --blocks $(BLOCKS)

# What the runtime adds to a plan's times, and what it survives: docs/runtime-speed.md (some fifteen minutes on a
# machine that does nothing else). `make bench-runtime SOAK=60` answers images for an hour.
bench-runtime: $(VENV)/.ready-dev
	$(BIN)/python -m benchmarks.runtime $(if $(SOAK),--soak-minutes $(SOAK))

# The solver beside direct models and baselines, up to 1000 classes on 1000 devices: docs/solve.md (an
# hour; goes on where it was stopped). `make bench-solve SIZES=S,M` takes some of the sizes.
SIZES := S,M,R,L,XL
bench-solve: $(VENV)/.ready
	$(BIN)/python -m benchmarks.solve --sizes $(SIZES)

# How its time and gap grow: docs/solve-growth.png (some ten minutes).
bench-solve-plots: $(VENV)/.ready-report
	$(BIN)/python -m benchmarks.solve --plots

# The latency model beside measured sub-models in ONNX Runtime: docs/latency.md (some fifteen minutes; let nothing
# else run).
bench-latency: $(VENV)/.ready-dev
	$(BIN)/python benchmarks/latency.py

# Is the predicted accuracy true? docs/truth.md (hours with all models; goes on where it was stopped). Other models than
# the shipped one are looked for in $PLANNER_MODELS or ../shared/models.
bench-truth: $(VENV)/.ready-dev
	$(BIN)/python -m benchmarks.truth

# Why not just a small CNN? docs/rivals.md: beside the split ViT at its latency a small CNN, one split by class, and a
# spiking one (half an hour; goes on where it was stopped). Fashion-MNIST and its ViT are read as for bench-truth.
bench-rivals: $(VENV)/.ready-dev
	$(BIN)/python -m benchmarks.rivals

# Which importance predicts what classes lose, and which channel groups keep most: docs/importance.md (half an
# hour; goes on where it was stopped). Fashion-MNIST is read from $PLANNER_DATA or ../shared/data.
bench-importance: $(VENV)/.ready
	$(BIN)/python -m benchmarks.importance

# The C engine: accuracy of the demo's bundle, microcontrollers under qemu, times beside ONNX Runtime; the tables of
# docs/c-engine.md (some two minutes, after `make demo`; arm-none-eabi-gcc and qemu-system-arm must be installed).
bench-c: $(VENV)/.ready-dev
	$(BIN)/python -m benchmarks.c $(DEMO)/bundle

# Measure the shipped model again, on this machine.
profile: $(VENV)/.ready
	$(BIN)/planner profile digits-vit --out profiles/digits-vit.json

# Train the shipped model again; profile it afterwards.
model: $(VENV)/.ready
	$(BIN)/python -m planner.executor.train_whole models/digits-vit/card.json

clean:
	rm -rf build dist $(VENV)

$(VENV)/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[data,deploy]'
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[data,deploy,dev,report,rivals]'
	touch $@

$(VENV)/.ready-report: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[data,deploy,report]'
	touch $@
