"""The files of a batch: its settings, the requests that go out, the output that comes back, and what is still out."""
