"""Talking to models: an HTTP client, a vLLM server that we start, a journal of every call."""
