"""Documents in, a dataset out: a teacher writes question/response pairs, a filter decides, all is kept.

The names below are the public API. None of them loads torch, transformers or vLLM.
"""
