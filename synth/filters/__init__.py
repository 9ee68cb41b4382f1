"""Filters score records and decide on them. One file a scorer; `base` has the protocol and the rules."""
