"""The dashboard for whoever trains: does the model see and say what it did when it was evaluated."""

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from grafana.page import REFUSED, VERSION, page
from grafana.panels import GREEN, ORANGE, PLAIN, RED, Query, bars, buckets, single, timeseries

_STATISTICS = {
    "brightness": "Mean luma, 0 is black",
    "contrast": "Standard deviation of luma",
    "colour_balance": "Mean red against mean blue, 0.5 is neutral",
    "sharpness": "Mean difference of neighbouring pixels",
}
_SHARE = (
    f"sum by (label) (rate(cifar_predictions_total{{{VERSION}}}[15m])) "
    f"/ on () group_left () (sum(rate(cifar_predictions_total{{{VERSION}}}[15m])) > 0)"
)
# Of the pictures; that of the confidence has panels of its own.
_DRIFT = f'version_statistic:cifar_input_drift:ks15m{{statistic!="confidence", {VERSION}}}'
_PACE = ((None, GREEN), (0.75, ORANGE), (1, RED))


def model_dashboard() -> Dashboard:
    """Predictions, confidence and inputs against the baseline of the evaluation."""
    return page(
        "cifar-model",
        "CIFAR model",
        "What the model predicts, how sure it is and what it is shown, against the images that it was evaluated on.",
        {
            "The last 15 minutes against the baseline": _last_quarter(),
            "Predictions": _predictions(),
            "Confidence": _confidence(),
            "Inputs": _inputs(),
        },
    )


def _last_quarter() -> list[Builder[Panel]]:
    return [
        _nearness(
            "Prediction shift",
            "cifarpredictionmixshifted",
            f"version:cifar_prediction_shift:distance15m{{{VERSION}}}",
            "threshold:cifar_prediction_shift:distance",
        ),
        _nearness(
            "Fall of confidence",
            "cifarconfidencefallen",
            f"version:cifar_confidence_fall:difference15m{{{VERSION}}}",
            "threshold:cifar_confidence_fall:difference",
        ),
        _nearness(
            "Input drift",
            "cifarinputdrift",
            f"max by (job, model_version) ({_DRIFT})",
            "threshold:cifar_input_drift:ks",
        ),
        single(
            "Images",
            "Images predicted in 15 minutes. Of few, the figures beside say little, and no alert looks at them.",
            "short",
            Query(f"version:cifar_images:increase15m{{{VERSION}}}", "{{model_version}}"),
            PLAIN,
        ),
        single(
            "Confidence now",
            "Mean probability of the predicted label. Far below the accuracy of the evaluation, the model sees what "
            "it does not know: docs/runbook.md#cifarconfidencefallen.",
            "percentunit",
            Query(f"version:cifar_confidence:mean15m{{{VERSION}}}", "{{model_version}}"),
            PLAIN,
        ),
        single(
            "Refused requests",
            "Share of requests that were refused in 5 minutes: docs/runbook.md#cifarmanyinputsrejected.",
            "percentunit",
            Query(
                REFUSED,
                "{{model_version}}",
            ),
            ((None, GREEN), (0.1, RED)),
        ),
    ]


def _predictions() -> list[Builder[Panel]]:
    return [
        timeseries(
            "Predictions by label",
            "Share of the images that were predicted to be of each label, 15 minutes at each point. A band that "
            "widens: docs/runbook.md#cifarpredictionmixshifted.",
            "percentunit",
            Query(_SHARE, "{{label}}"),
            width=6,
            stacked=True,
        ),
        bars(
            "Predictions now and on the test images",
            "The same, now, beside the share that it was on the test images. It tells which label has grown or gone.",
            "percentunit",
            "label",
            Query(_SHARE, "last 15 minutes"),
            Query(f"avg by (label) (cifar_baseline_prediction_ratio{{{VERSION}}})", "test images", "baseline"),
            width=6,
        ),
        timeseries(
            "Shift of the predictions",
            "Total variation distance to the test images: the share of predictions that would have to be others. "
            "Above the line: docs/runbook.md#cifarpredictionmixshifted.",
            "percentunit",
            Query(f"version:cifar_prediction_shift:distance15m{{{VERSION}}}", "{{model_version}}"),
            Query("threshold:cifar_prediction_shift:distance", "alerts above", "threshold"),
            width=6,
        ),
        timeseries(
            "Versions against each other",
            "Distance between the predictions of an hour of versions that answer at the same time; 0 where there is "
            "nothing to compare with. Above the line: docs/runbook.md#cifarversionsdisagree.",
            "percentunit",
            Query(
                f"max by (model_version) (version:cifar_disagreement:distance1h{{{VERSION}}} "
                f"or 0 * version:cifar_images:increase15m{{{VERSION}}})",
                "{{model_version}}",
            ),
            Query("threshold:cifar_disagreement:distance", "alerts above", "threshold"),
            width=6,
        ),
    ]


def _confidence() -> list[Builder[Panel]]:
    return [
        timeseries(
            "Mean confidence",
            "Mean probability of the predicted label in 15 minutes, and on the test images. Well below: "
            "docs/runbook.md#cifarconfidencefallen.",
            "percentunit",
            Query(f"version:cifar_confidence:mean15m{{{VERSION}}}", "{{model_version}}"),
            Query(_baseline("confidence"), "{{model_version}}, test images", "baseline"),
            from_zero=False,
        ),
        buckets(
            "How sure predictions are",
            "Predictions by their probability, of the chosen versions together. Dark low down: many guesses.",
            "percentunit",
            Query(f"sum by (le) (increase(cifar_confidence_bucket{{{VERSION}}}[$__rate_interval]))", "{{le}}"),
        ),
        timeseries(
            "Fall of the confidence",
            "Mean on the test images minus mean of 15 minutes; below 0 it is surer than there. Above the line: "
            "docs/runbook.md#cifarconfidencefallen.",
            "percentunit",
            Query(f"version:cifar_confidence_fall:difference15m{{{VERSION}}}", "{{model_version}}"),
            Query("threshold:cifar_confidence_fall:difference", "alerts above", "threshold"),
        ),
    ]


def _inputs() -> list[Builder[Panel]]:
    return [
        timeseries(
            "Drift of the inputs",
            "Kolmogorov-Smirnov distance of each statistic to the test images, 0 to 1. Above the line, look below at "
            "what has moved: docs/runbook.md#cifarinputdrift.",
            "none",
            Query(_DRIFT, "{{statistic}} {{model_version}}"),
            Query("threshold:cifar_input_drift:ks", "alerts above", "threshold"),
        ),
        timeseries(
            "Refused requests by reason",
            "Refusals a second by their code; what a code means is in handler/bad_input.py: "
            "docs/runbook.md#cifarmanyinputsrejected.",
            "reqps",
            Query(
                f"sum by (reason) (rate(cifar_rejected_inputs_total{{{VERSION}}}[$__rate_interval])) "
                'or on () label_replace(vector(0), "reason", "none", "", "")',
                "{{reason}}",
            ),
        ),
        timeseries(
            "Images in a request",
            "Mean number of images in a request that was not refused. Larger requests take longer, each of them.",
            "none",
            Query(_mean("cifar_images_per_request", "$__rate_interval"), "{{model_version}}"),
        ),
        *(_statistic(name, meaning) for name, meaning in _STATISTICS.items()),
    ]


def _nearness(title: str, heading: str, measured: str, threshold: str) -> Builder[Panel]:
    """How much of what alerts has been reached."""
    return single(
        f"{title}, of its threshold",
        f"Distance to the test images, as a share of what is normal; above 100 %: docs/runbook.md#{heading}.",
        "percentunit",
        Query(f"clamp_min({measured} / scalar({threshold}), 0)", "{{model_version}}"),
        _PACE,
    )


def _statistic(name: str, meaning: str) -> Builder[Panel]:
    return timeseries(
        name.replace("_", " ").capitalize(),
        f"{meaning}: mean of one picture a batch, and on the test images. Apart: docs/runbook.md#cifarinputdrift.",
        "none",
        Query(_mean(f"cifar_input_{name}", "15m"), "{{model_version}}"),
        Query(_baseline(name), "{{model_version}}, test images", "baseline"),
        width=6,
        from_zero=False,
    )


def _mean(histogram: str, window: str) -> str:
    total, count = (
        f"sum by (model_version) (rate({histogram}_{part}{{{VERSION}}}[{window}]))" for part in ("sum", "count")
    )
    return f"{total} / ({count} > 0)"


def _baseline(statistic: str) -> str:
    return f'max by (model_version) (cifar_baseline_mean{{statistic="{statistic}", {VERSION}}})'
