"""A dataset in, a tuned student and a verdict out. Imports TRL, PEFT and torch only where it trains."""
