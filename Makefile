.PHONY: demo test
demo:
	bash .ci/demo
test:
	bash .ci/test
