"""From images to one TorchScript file: data, network, training, evaluation, export."""
