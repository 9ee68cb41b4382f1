"""The parts of `tune export`: merging, the parity check, other formats, the card."""
