"""TensorBoard's files, written for every training."""

from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from transformers.integrations import TensorBoardCallback


def tensorboard_writer(folder: Path, resumed_at: int | None) -> TensorBoardCallback:
    """Return the callback that writes losses, rates and norms to event files in `folder`.

    Args:
        folder: such as logs/tensorboard/<candidate> of the run.
        resumed_at: the step gone on from; later points of a killed process are hidden by TensorBoard. None hides all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    purge = 0 if resumed_at is None else resumed_at + 1
    return TensorBoardCallback(SummaryWriter(log_dir=str(folder), purge_step=purge))
