"""Which of several training processes this is, as `accelerate launch` and torchrun say it in the environment."""

import os


def processes() -> int:
    """Return how many processes train together; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this is the process that locks the run, writes its files and talks to the user."""
    return int(os.environ.get("RANK", "0")) == 0
