# What a developer runs, and CI: nothing else is needed.
PYTHON ?= python

.PHONY: install test laws bench lint docs site install-site

install:  ## everything a developer needs, at the versions CI runs with
	$(PYTHON) -m pip install -c constraints.txt -e '.[test]'
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["lint"], sep="\n")' \
		| $(PYTHON) -m pip install -c constraints.txt -r /dev/stdin

test:  ## the tests of the README
	$(PYTHON) -m pytest

laws:  ## laws that take long
	$(PYTHON) -m pytest -m slow

bench:  ## how fast, against the same mathematics written by hand
	$(PYTHON) -m pytest benches -n 0 --benchmark-only --save-results

lint:  ## style and types
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m pyright --pythonpath "$$($(PYTHON) -c 'import sys; print(sys.executable)')"

docs:  ## the examples of the documents, run
	$(PYTHON) -m pytest tests/house/test_docs.py tests/docs

site:  ## the documentation site, into site/; needs `make install-site` once
	$(PYTHON) docs/pages.py
	$(PYTHON) -m zensical build --clean --strict

install-site:  ## what makes the site
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["site"], sep="\n")' \
		| $(PYTHON) -m pip install -c constraints.txt -r /dev/stdin
