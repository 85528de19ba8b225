# What people and CI run; see CONTRIBUTING.md.
set positional-arguments

default: lint test

# install everything for development into .venv
install:
    python3 -m venv .venv
    .venv/bin/pip install -e '.[dev]'

# the whole suite, slow tests included
test *args:
    .venv/bin/python -m pytest "$@"

# what a change should pass while it is being written
quick:
    .venv/bin/python -m pytest -m 'not slow' -x -q

lint:
    .venv/bin/ruff check .
    .venv/bin/ruff format --check .
    .venv/bin/mypy

format:
    .venv/bin/ruff check --fix .
    .venv/bin/ruff format .

# the figures of the README and of the cards
evaluate:
    .venv/bin/kinetograph evaluate --engine gan --world circle --split heldout --count 1000 --out out/heldout
    .venv/bin/kinetograph evaluate --engine gan --prompts examples/article-prompts.txt --count 360 --out out/article
