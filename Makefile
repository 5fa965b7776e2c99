.PHONY: demo test docs
demo:
	bash .ci/demo
test:
	bash .ci/test
docs:
	.venv/bin/python -m pip install --quiet -c constraints.txt -e '.[docs]' && .venv/bin/python docs/api.py site
