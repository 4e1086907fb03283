# make demo      set up everything and run the main job: raw videos -> benchmarked localiser in the registry
# make test      set up everything and pass the tests (6 to 11 minutes on two cores once installed)
# make help      the rest
PYTHON ?= python3
VENV   ?= .venv
STORE  ?= runs
FAISS  ?= $(if $(wildcard $(VENV)/.ready-gpu),gpu,cpu)
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready-$(FAISS)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint types bench results ablation gpu-check clean

help:            ## list the targets
	@grep -hE '^[a-z-]+: .*##|^[a-z-]+:  *##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

setup: $(READY)  ## create the virtual environment with everything (FAISS=gpu for faiss-gpu, which later calls keep)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"Python {v[0]}.{v[1]} found; expected 3.11 to 3.13: make PYTHON=python3.11 ...")'
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "no venv: install your system's python3-venv"; exit 1; }
	@rm -f $(VENV)/.ready-*; $(BIN)/python -m pip uninstall --quiet --yes faiss-cpu faiss-gpu 2> /dev/null || true
	@echo "installing into $(VENV): about 4 minutes and 7 GB the first time"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(FAISS),demo,dev]'
	@touch $@

demo: $(READY)   ## run the whole pipeline on generated videos (6 to 12 minutes on two cores)
	$(BIN)/dsol demo --store $(STORE)

test: $(READY)   ## unit, architecture, smoke, rerun, resume and server tests, one Ray node
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-all: $(READY) ## the same and what takes longer: several Ray nodes, killed workers, cron (nightly)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not gpu'

lint: $(READY)   ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)  ## mypy, strict
	$(BIN)/mypy

bench: $(READY)   ## speed of every stage against the physical limit and the plain way (docs/results/speed.md)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]' \
		|| echo "librosa cannot be installed: the plain way resamples with scipy"
	$(BIN)/python benchmarks/bench.py $(BENCH)

results: $(READY) ## measure demo.md, rerun.md, scaling.md, scoring_speed.md of docs/results (hours); docs/results/README.md has the others' commands
	$(BIN)/dsol compare demo --set data.seed=1 --row ours --row one-window=ours,stage_two.windows=1 \
		--row stage-one=ours,stage_two.hearing_passes=0 \
		--row mixing=ours,stage_two.hearing_passes=0,stage_one.mixtures=2@0 --seed 0 --seed 1 --seed 2 --store $(STORE) --out docs/results/demo.md
	$(BIN)/dsol run demo --store $(STORE)
	$(BIN)/python benchmarks/rerun.py demo --store $(STORE) --out docs/results/rerun.md
	rm -rf $(STORE)/scaling
	$(BIN)/python benchmarks/scaling.py --store $(STORE)/scaling --out docs/results/scaling.md
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/scoring_speed.py --out docs/results/scoring_speed.md

# One change of `ours` at a time, and two other localisers. "trunk-map" and "scenes" are what the row behind them is compared
# with: in `ours` the divisor of a masked mean and the reduction of the divergence act on nothing. "one-second" trains with
# one sound a picture; `ours` has the three that a video of the demo gives. "one-window" hears one where it is evaluated.
ABLATION = ours \
	max=ours,stage_one.pooling=max \
	learned-pooling=ours,stage_one.pooling=learned \
	one-second=ours,stage_one.neighbour_seconds=false \
	one-window=ours,stage_two.windows=1 \
	15-clusters=ours,stage_one.clusters=15 \
	20-clusters=ours,stage_one.clusters=20 \
	euclidean=ours,stage_one.spherical=false \
	last-clustering=ours,dictionary.recompute=false \
	trunk-map=ours,$(TRUNK),stage_one.mask_mean=map \
	trunk-mask=ours,$(TRUNK),stage_one.mask_mean=mask \
	scenes=ours,stage_two.epochs=3 \
	scenes-element=ours,stage_two.epochs=3,stage_two.reduction=element \
	gate-product=ours,stage_two.gating=product \
	gate-min=ours,stage_two.gating=min \
	gate-none=ours,stage_two.gating=none \
	no-background=ours,stage_two.background=null \
	false-negatives=ours,stage_one.drop_same_cluster=false \
	reference-audio=ours,$(REFERENCE_AUDIO) \
	waveform-mixing=ours,stage_two.hearing_mixing=waveform \
	upper-trunk=ours,stage_one.backbone.trainable_blocks=1 \
	no-first-labels=ours,stage_one.first_labels=none \
	no-noise=ours,stage_two.hearing_noise=0 \
	ez_vsl class_tokens
# A mask of the map above 0.5 is where cosines are above 0; above the 0.05 of the code they are above -0.59: no mask. The
# temperature suits inner products of features that are not normalised: with 0.2 each cell is of one entry, without doubt.
TRUNK = stage_one.cluster_space=trunk,stage_one.mask_threshold=0.5,dictionary.space=trunk,$(INNER)
INNER = stage_two.class_maps=inner,stage_two.map_temperature=5,stage_two.seen_exponent=0
REFERENCE_AUDIO = $(subst $(SPACE),$(COMMA),$(addprefix stage_one.audio.,n_fft=160 window=160 hop=80 low_hz=0 \
	mel_scale=slaney power=1 log=decibel floor=1.0e-10 dynamic_range_db=80 standardise=false))
COMMA := ,
SPACE := $(subst ,, )

ablation: $(READY) ## one change of the method at a time, on a third of the demo's videos (hours on two cores)
	$(BIN)/dsol compare demo --set data.seed=1 --set "data.videos.orchestra.solo_per_category=[30,10,20]" \
		--set "data.videos.orchestra.multi=[4,40,100]" --set "data.scenes.count=[400,40,100]" \
		$(addprefix --row ,$(ABLATION)) --seed 0 --seed 1 --seed 2 --store $(STORE) --out docs/results/ablation.md

gpu-check: $(READY) ## parity, speed, memory and one run on a GPU (docs/results/gpu.md); the tests that need one
	$(BIN)/python benchmarks/gpu_check.py --out docs/results/gpu.md; checks=$$?; $(BIN)/python -m pytest -m gpu && exit $$checks

clean:           ## remove caches; artifacts in $(STORE) stay
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
