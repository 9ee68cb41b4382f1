"""What DoRA asks of the weights that it is put beside."""

import torch

from synth.core.errors import ConfigError


def check_rows(model: torch.nn.Module) -> None:
    """Refuse weights with a row of noughts; call it when the adapter is in place, before a step is taken.

    DoRA divides each row of a weight matrix by its length (Liu et al. 2024, equation 5), so a row of noughts makes the
    first loss not a number. Pruned students have such rows, and so have the bundled ones.

    Raises:
        ConfigError: there is such a row.
    """
    sizes = {name: weight for name, weight in model.named_parameters() if ".lora_magnitude_vector." in name}
    empty = {name: int((weight == 0).sum()) for name, weight in sizes.items()}
    layers = [name.partition(".lora_magnitude_vector.")[0] for name, rows in empty.items() if rows]
    if layers:
        raise ConfigError(
            f"{sum(empty.values())} rows of the student's weights are all noughts, the first of them in {layers[0]}, "
            "and DoRA divides by the length of a row",
            where="--dora",
            fix="leave --dora out",
        )
