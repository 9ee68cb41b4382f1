"""The filter stage's parts: one file each. synth/filter.py puts them together."""
