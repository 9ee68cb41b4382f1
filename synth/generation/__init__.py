"""The parts of the generate stage: its settings, the passages on disk, units of work, caps and counts."""
