"""The nouns and files that every stage shares. Nothing here imports a machine-learning library."""
