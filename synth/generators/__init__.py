"""Generators write records about a passage. One file each; `base` has the protocol."""
