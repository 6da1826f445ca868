"""The upper ends of the histograms' buckets, and how Prometheus is told of them."""

# E12, the preferred numbers of IEC 60063: each is at most 1.25 times the one before, so that a quantile between 1 and
# 220 milliseconds is told within 25 %.
_E12 = (1.0, 1.2, 1.5, 1.8, 2.2, 2.7, 3.3, 3.9, 4.7, 5.6, 6.8, 8.2)
_MILLISECONDS = (0.1, 0.2, 0.5, *_E12, *(10 * it for it in _E12), 100, 120, 150, 180, 220, 500, 1000, 2500, 5000, 10000)
_TWENTIETHS = tuple(step / 20 for step in range(1, 20))

BOUNDS: dict[str, tuple[float, ...]] = {
    "cifar_batch_size": (1, 2, 4, 8, 16, 32, 64),
    "cifar_images_per_request": (1, 2, 4, 8, 16, 32, 64, 128, 256),
    "cifar_stage_seconds": tuple(round(it / 1000, 6) for it in _MILLISECONDS),
    "cifar_confidence": (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999),
    "cifar_input_brightness": _TWENTIETHS,
    "cifar_input_contrast": tuple(step / 40 for step in range(1, 20)),
    "cifar_input_colour_balance": tuple(step / 40 for step in range(12, 29)),
    "cifar_input_sharpness": (0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.3),
}


def bucket_label(bound: float) -> str:
    """Return the value of the label `le` for a bucket that ends at `bound`."""
    return f"{bound:g}"
