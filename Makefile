# make demo and make test set up all that they need on Debian 12 and run on any machine, with no GPU.
BUILD ?= build
JOBS ?= $(shell nproc)
TRACE ?= examples/traces/opt_recompute.pickle.gz

.PHONY: help build demo test figures ci format lint tables clean

help:
	@echo "make demo     compare gmlake with PyTorch's allocators on a recorded training job"
	@echo "make test     build everything and run all tests"
	@echo "make build    build the library and the tool ($(BUILD)/gmlake)"
	@echo "make figures  check every promised figure on all bundled traces; write bench/results/"
	@echo "make ci       all that CI runs"
	@echo "make format   format the C++ sources        make lint   layers, format, clang-tidy"
	@echo "make tables   fill the tables of README.md and docs/ from bench/results/ and the library"
	@echo "make clean    remove all build folders"

.PHONY: setup
setup:
	@tools/setup.sh build

$(BUILD)/build.ninja: | setup
	@cmake --preset release -B $(BUILD) > $(BUILD).log 2>&1 || (cat $(BUILD).log; exit 1)
	@rm -f $(BUILD).log

build: $(BUILD)/build.ninja
	cmake --build $(BUILD) --parallel $(JOBS) --target gmlake gmlake_tool

demo: build
	$(BUILD)/gmlake compare $(TRACE)

test: $(BUILD)/build.ninja
	cmake --build $(BUILD) --parallel $(JOBS)
	ctest --test-dir $(BUILD) --parallel $(JOBS) --output-on-failure $(TEST_FLAGS)

figures: build
	python3 bench/figures.py --tool $(BUILD)/gmlake

ci:
	bash .ci/run

format:
	@tools/setup.sh ci
	tools/format.sh

lint: $(BUILD)/build.ninja
	@tools/setup.sh ci
	tools/format.sh --check
	python3 tools/check_layers.py
	tools/tidy.sh $(BUILD)

tables: build
	python3 tools/make_tables.py --tool $(BUILD)/gmlake

clean:
	rm -rf build build-debug build-audit build-asan build-tsan build-fuzz
