"""Fits the temperature of weights that are there already: trained elsewhere, or to be asked in another way.

`python -m training.calibrate --weights their/best_cnn_model.pth model.mirror=true`
"""

from pathlib import Path
from typing import Annotated

import torch
import typer

from cifar.common.console import console, run_stage
from cifar.common.files import write_json
from cifar.common.training_record import RECORD_NAME, read_record
from training.calibration import fit_temperature
from training.data import DATA_FILE, load_dataset
from training.errors import WeightsError
from training.evaluate import predict_logits
from training.model import ModelParams
from training.params import check_sections
from training.weights import WEIGHTS_FILE, find_params, load_classifier, plain_values


def main(
    overrides: Annotated[list[str] | None, typer.Argument(metavar="model.KEY=VALUE…")] = None,
    data: Annotated[Path, typer.Option(help="the prepared data set")] = DATA_FILE,
    weights: Annotated[Path, typer.Option(help="whose record is written, training.json beside them")] = WEIGHTS_FILE,
) -> None:
    """Fit the temperature on the validation images, and keep it and the given parameters beside the weights.

    The network must not have been trained on these images: it would be sure of them, and be taken for too modest.
    """
    given = overrides or []
    check_sections(given, ModelParams)
    record, dataset = read_record(weights) or {}, load_dataset(data)
    if record.get("data_digest", dataset.digest) != dataset.digest:
        raise WeightsError(
            f"{weights} were trained on other data ({record['data_digest'][:12]}…) than {data} holds "
            f"({dataset.digest[:12]}…); its validation images may be among those that they were trained on"
        )
    logits = torch.from_numpy(predict_logits(load_classifier(weights, given), dataset.validation_images))
    labels = torch.from_numpy(dataset.validation_labels)
    fitted = {
        "model": plain_values(find_params(weights, given)),
        "temperature": fit_temperature(logits, labels),
        "validation_loss": torch.nn.functional.cross_entropy(logits, labels).item(),
        "validation_accuracy": (logits.argmax(1) == labels).double().mean().item(),
    }
    write_json(record | fitted, weights.parent / RECORD_NAME)
    console.print(
        f"{weights.parent / RECORD_NAME}: temperature {fitted['temperature']:.3f}, validation accuracy "
        f"{fitted['validation_accuracy']:.2%}. Figures of the test images are to be measured anew: "
        f"python -m training.evaluate --weights {weights}",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    run_stage(main)
