"""The parts of the filter stage: its settings, what is said of one record alone, and what of all together."""
