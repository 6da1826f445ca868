"""The dashboard for model developers: are inputs and predictions still like those of the evaluation."""

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from grafana.dashboard import REJECTED, VERSION, dashboard
from grafana.panels import GREEN, ORANGE, PLAIN, RED, Query, bar_chart, heatmap, stat, timeseries

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
# Of the images; that of the confidence has panels of its own.
_DRIFT = f'version_statistic:cifar_input_drift:ks15m{{statistic!="confidence", {VERSION}}}'
_SHARE_OF_THRESHOLD = ((None, GREEN), (0.75, ORANGE), (1, RED))


def model_dashboard() -> Dashboard:
    """Predictions, confidence and inputs against the baseline of the evaluation."""
    return dashboard(
        "cifar-model",
        "CIFAR model",
        "Predictions, confidence and inputs of the model, compared with the images that it was evaluated on.",
        {
            "The last 15 minutes against the baseline": _last_quarter(),
            "Predictions": _predictions(),
            "Confidence": _confidence(),
            "Inputs": _inputs(),
        },
    )


def _last_quarter() -> list[Builder[Panel]]:
    return [
        _share_of_threshold(
            "Prediction shift",
            "cifarpredictionmixshifted",
            f"version:cifar_prediction_shift:distance15m{{{VERSION}}}",
            "threshold:cifar_prediction_shift:distance",
        ),
        _share_of_threshold(
            "Confidence drop",
            "cifarconfidencefallen",
            f"version:cifar_confidence_fall:difference15m{{{VERSION}}}",
            "threshold:cifar_confidence_fall:difference",
        ),
        _share_of_threshold(
            "Input drift",
            "cifarinputdrift",
            f"max by (job, model_version) ({_DRIFT})",
            "threshold:cifar_input_drift:ks",
        ),
        stat(
            "Images",
            "Images predicted in 15 minutes. With few of them the panels beside are noise, and no alert fires.",
            "short",
            Query(f"version:cifar_images:increase15m{{{VERSION}}}", "{{model_version}}"),
            PLAIN,
        ),
        stat(
            "Mean confidence now",
            "Mean probability of the predicted label. Far below the accuracy of the evaluation, the inputs are "
            "unlike the training images: docs/runbook.md#cifarconfidencefallen.",
            "percentunit",
            Query(f"version:cifar_confidence:mean15m{{{VERSION}}}", "{{model_version}}"),
            PLAIN,
        ),
        stat(
            "Rejected requests",
            "Share of requests that were rejected in 5 minutes: docs/runbook.md#cifarmanyinputsrejected.",
            "percentunit",
            Query(
                REJECTED,
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
        bar_chart(
            "Predictions compared with the test images",
            "The same, now, beside the share on the test images. It shows which label has grown or gone.",
            "percentunit",
            "label",
            Query(_SHARE, "last 15 minutes"),
            Query(f"avg by (label) (cifar_baseline_prediction_ratio{{{VERSION}}})", "test images", "baseline"),
            width=6,
        ),
        timeseries(
            "Prediction shift",
            "Total variation distance to the test images: the share of predictions that would have to be others. "
            "Above the line: docs/runbook.md#cifarpredictionmixshifted.",
            "percentunit",
            Query(f"version:cifar_prediction_shift:distance15m{{{VERSION}}}", "{{model_version}}"),
            Query("threshold:cifar_prediction_shift:distance", "alert threshold", "threshold"),
            width=6,
        ),
        timeseries(
            "Disagreement between versions",
            "Distance between the predictions of an hour of versions that answer at the same time; 0 where there is "
            "nothing to compare with. Above the line: docs/runbook.md#cifarversionsdisagree.",
            "percentunit",
            Query(
                f"max by (model_version) (version:cifar_disagreement:distance1h{{{VERSION}}} "
                f"or 0 * version:cifar_images:increase15m{{{VERSION}}})",
                "{{model_version}}",
            ),
            Query("threshold:cifar_disagreement:distance", "alert threshold", "threshold"),
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
        heatmap(
            "Confidence distribution",
            "Predictions by their probability, of the chosen versions together. Dark at the bottom: many are "
            "uncertain.",
            "percentunit",
            Query(f"sum by (le) (increase(cifar_confidence_bucket{{{VERSION}}}[$__rate_interval]))", "{{le}}"),
        ),
        timeseries(
            "Confidence drop",
            "Mean on the test images minus mean of 15 minutes; below 0 the model is more confident than there. Above "
            "the line: docs/runbook.md#cifarconfidencefallen.",
            "percentunit",
            Query(f"version:cifar_confidence_fall:difference15m{{{VERSION}}}", "{{model_version}}"),
            Query("threshold:cifar_confidence_fall:difference", "alert threshold", "threshold"),
        ),
    ]


def _inputs() -> list[Builder[Panel]]:
    return [
        timeseries(
            "Input drift",
            "Kolmogorov-Smirnov distance of each statistic to the test images, 0 to 1. Above the line, look below at "
            "what has moved: docs/runbook.md#cifarinputdrift.",
            "none",
            Query(_DRIFT, "{{statistic}} {{model_version}}"),
            Query("threshold:cifar_input_drift:ks", "alert threshold", "threshold"),
        ),
        timeseries(
            "Rejected requests by reason",
            "Rejections a second by their code; what a code means is in handler/bad_input.py: "
            "docs/runbook.md#cifarmanyinputsrejected.",
            "reqps",
            Query(
                f"sum by (reason) (rate(cifar_rejected_inputs_total{{{VERSION}}}[$__rate_interval])) "
                'or on () label_replace(vector(0), "reason", "none", "", "")',
                "{{reason}}",
            ),
        ),
        timeseries(
            "Images per request",
            "Mean number of images in a request that was not rejected. Larger requests take longer.",
            "none",
            Query(_mean("cifar_images_per_request", "$__rate_interval"), "{{model_version}}"),
        ),
        *(_statistic(name, meaning) for name, meaning in _STATISTICS.items()),
    ]


def _share_of_threshold(title: str, heading: str, measured: str, threshold: str) -> Builder[Panel]:
    """A measure divided by its threshold."""
    return stat(
        f"{title}, share of its threshold",
        f"Distance to the test images, divided by its threshold; above 100 %: docs/runbook.md#{heading}.",
        "percentunit",
        Query(f"clamp_min({measured} / scalar({threshold}), 0)", "{{model_version}}"),
        _SHARE_OF_THRESHOLD,
    )


def _statistic(name: str, meaning: str) -> Builder[Panel]:
    return timeseries(
        name.replace("_", " ").capitalize(),
        f"{meaning}: mean of one image a batch, and on the test images. Apart: docs/runbook.md#cifarinputdrift.",
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
