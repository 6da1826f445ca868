"""The dashboard for the person on call: rate, errors, duration, saturation, and which version serves."""

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from grafana.dashboard import REJECTED, VERSION, dashboard
from grafana.panels import (
    BLUE,
    GREEN,
    ORANGE,
    PLAIN,
    PURPLE,
    RED,
    YELLOW,
    Query,
    stat,
    state_timeline,
    table,
    timeseries,
)

_ROLES = {
    4: ("being deployed", YELLOW),
    3: ("served", PURPLE),
    2: ("default", GREEN),
    1: ("deployed", BLUE),
    0: ("served, not deployed", ORANGE),
    -1: ("deployed, not served", RED),
}
# Which of them a version is; 3 before the first deployment, when it is not known what should be served.
_SERVED = "group by (model_version) (version:cifar_live_workers:count1m > 0.5)"
_DEPLOYED = 'group by (model_version) (up{job="deployed"})'
_ROLE = (
    f'2 * group by (model_version) (up{{job="deployed", default="true"}}) '
    f'or 4 * group by (model_version) (up{{job="deployed", underway="true"}}) or {_DEPLOYED} '
    f'or (0 * {_SERVED} and on () up{{job="deployed"}}) or 3 * {_SERVED}'
)
_MISSING = f'-1 * group by (model_version) (up{{job="deployed", underway="false"}}) unless on (model_version) {_SERVED}'

_HANDLE = (
    f'sum by (model_version, le) (rate(cifar_stage_seconds_bucket{{stage="handle", {VERSION}}}[$__rate_interval]))'
)
_STAGES = f"sum by (stage, le) (rate(cifar_stage_seconds_bucket{{{VERSION}}}[$__rate_interval]))"
# TorchServe's CPUUtilization is not used: each value is measured over the milliseconds in which its collector starts.
_BUSY = (
    f'clamp_max(sum by (model_version) (rate(cifar_stage_seconds_sum{{stage="handle", {VERSION}}}[$__rate_interval])) '
    f'/ sum by (model_version) (rate(cifar_stage_seconds_count{{stage="handle", {VERSION}}}[$__rate_interval])) '
    f"* sum by (model_version) (rate(cifar_batch_size_count{{{VERSION}}}[$__rate_interval])) "
    f"/ sum by (model_version) (version:cifar_live_workers:count1m{{{VERSION}}} > 0), 1)"
)


def service_dashboard() -> Dashboard:
    """Rate, errors, duration and saturation, by version."""
    return dashboard(
        "cifar-service",
        "CIFAR service",
        "Rate, errors, duration and saturation of TorchServe by version of the model; alerts and what is deployed.",
        {
            "Now": _now(),
            "Deployments and alerts": _deployments_and_alerts(),
            "Rate and errors": _rate_and_errors(),
            "Duration": _duration(),
            "Saturation": _saturation(),
        },
    )


def _now() -> list[Builder[Panel]]:
    return [
        stat(
            "Server",
            "Whether TorchServe answers Prometheus. If not: docs/runbook.md#cifarserverdown, #cifarscrapesfail.",
            "none",
            Query('min by (instance) (up{job="torchserve"})', "{{instance}}"),
            ((None, RED), (1, GREEN)),
            states={1: ("up", GREEN), 0: ("down", RED)},
        ),
        stat(
            "Default version",
            "What answers requests that name no version, as `cifar deploy` and `cifar rollback` have decided; before "
            "the first deployment, all that is served.",
            "none",
            Query(
                f'group by (model_version) (up{{job="deployed", default="true"}}) or on () {_SERVED}',
                "{{model_version}}",
            ),
            PLAIN,
            names=True,
        ),
        stat(
            "Firing alerts",
            "How many alerts fire; which, and since when, is below. Each has a heading in docs/runbook.md.",
            "none",
            Query('count(ALERTS{alertstate="firing"}) or vector(0)', "alerts"),
            ((None, GREEN), (1, RED)),
        ),
        stat(
            "Live workers",
            "Workers that sent a heartbeat in the last minute. None: docs/runbook.md#cifarnoliveworker.",
            "none",
            Query(f"version:cifar_live_workers:count1m{{{VERSION}}}", "{{model_version}}"),
            ((None, RED), (0.5, GREEN)),
        ),
        stat(
            "Error budget burn rate, 1 h",
            "How fast 5xx use up the budget: 1 uses up a month's in a month. Red pages: "
            "docs/runbook.md#cifarerrorbudgetburnsfast, #cifarerrorbudgetburnsslowly.",
            "suffix: ×",
            Query(_burn("job:torchserve_errors:ratio_rate1h", "threshold:torchserve_errors:ratio"), "errors"),
            ((None, GREEN), (1, ORANGE), (14.4, RED)),
        ),
        stat(
            "Latency budget burn rate, 1 h",
            "How fast requests over 100 ms use up the budget: 1 uses up a month's in a month. Red pages: "
            "docs/runbook.md#cifarlatencybudgetburnsfast, #cifarlatencybudgetburnsslowly.",
            "suffix: ×",
            Query(
                _burn(
                    f"version:cifar_slow_requests:ratio_rate1h{{{VERSION}}}",
                    "threshold:cifar_slow_requests:ratio",
                ),
                "{{model_version}}",
            ),
            ((None, GREEN), (1, ORANGE), (14.4, RED)),
        ),
    ]


def _deployments_and_alerts() -> list[Builder[Panel]]:
    return [
        state_timeline(
            "Versions",
            "What each version was: the default, deployed beside it, or served without having been deployed "
            "(docs/runbook.md#cifarundeployedversion, #cifarundeployedmodel). A mark in all panels shows where the "
            "default changes.",
            Query(_ROLE, "{{model_version}}"),
            _ROLES,
            width=6,
            height=7,
        ),
        state_timeline(
            "Alerts",
            "Alerts that are pending, and those that fire. What to do: their headings in docs/runbook.md.",
            Query(
                '2 * group by (alertname, model_version) (ALERTS{alertstate="firing"}) '
                'or group by (alertname, model_version) (ALERTS{alertstate="pending"}) '
                'or on () label_replace(vector(0), "alertname", "none", "", "")',
                "{{alertname}} {{model_version}}",
            ),
            {2: ("firing", RED), 1: ("pending", ORANGE), 0: ("inactive", GREEN)},
            width=12,
            height=7,
        ),
        table(
            "Builds",
            "Weights of each version, and the commit that trained them; `cifar trace --version` has the rest. "
            "Deployed, not served: see `cifar status`.",
            Query(
                "(max by (model_version, digest, commit) (cifar_build_info) * 0 + on (model_version) group_left () "
                f"({_ROLE})) or on (model_version) ({_MISSING})",
                "{{model_version}}",
            ),
            {"model_version": "version", "Value": "role", "digest": "weights", "commit": "commit"},
            _ROLES,
            width=6,
            height=7,
        ),
    ]


def _rate_and_errors() -> list[Builder[Panel]]:
    return [
        timeseries(
            "Requests by version",
            "Requests a second that workers have answered, rejections included. A sudden end: the client "
            "is gone, or the server.",
            "reqps",
            Query(
                f"sum by (model_version) (rate(cifar_batch_size_sum{{{VERSION}}}[$__rate_interval]))",
                "{{model_version}}",
            ),
        ),
        timeseries(
            "Error ratio",
            "Share of the predictions asked for that were answered with 5xx, and the budget. Above it for long: "
            "docs/runbook.md#cifarerrorbudgetburnsfast.",
            "percentunit",
            Query("job:torchserve_errors:ratio_rate5m", "5 minutes"),
            Query("job:torchserve_errors:ratio_rate1h", "1 hour"),
            Query("threshold:torchserve_errors:ratio", "budget", "threshold"),
        ),
        timeseries(
            "Rejected requests by version",
            "Share of requests that got a 4xx, and what alerts. The reasons are in the dashboard CIFAR model: "
            "docs/runbook.md#cifarmanyinputsrejected.",
            "percentunit",
            Query(
                REJECTED,
                "{{model_version}}",
            ),
            Query("threshold:cifar_rejected_inputs:ratio", "alert threshold", "threshold"),
        ),
    ]


def _duration() -> list[Builder[Panel]]:
    return [
        timeseries(
            "p99 latency by version",
            "Seconds in the worker that 99 % of the requests stay below, and the median, without queue time. After "
            "a deployment, compare the versions: docs/runbook.md#cifarlatencybudgetburnsfast.",
            "s",
            Query(f"histogram_quantile(0.99, {_HANDLE})", "{{model_version}}"),
            Query(f"histogram_quantile(0.5, {_HANDLE})", "{{model_version}} median", "secondary"),
        ),
        timeseries(
            "p99 latency by stage",
            "Where slow requests spend their time: decode grows with large images, inference with large "
            "requests and a busy machine.",
            "s",
            Query(f"histogram_quantile(0.99, {_STAGES})", "{{stage}}"),
        ),
        timeseries(
            "Slow requests by version",
            "Share of requests that took more than 100 ms in the worker, in 5 minutes and in 1 hour. Above the "
            "budget for long: docs/runbook.md#cifarlatencybudgetburnsslowly.",
            "percentunit",
            Query(f"version:cifar_slow_requests:ratio_rate5m{{{VERSION}}}", "{{model_version}}"),
            Query(f"version:cifar_slow_requests:ratio_rate1h{{{VERSION}}}", "{{model_version}} 1 hour", "secondary"),
            Query("threshold:cifar_slow_requests:ratio", "budget", "threshold"),
        ),
    ]


def _saturation() -> list[Builder[Panel]]:
    return [
        timeseries(
            "Queue time",
            "Mean seconds that a request waits for a worker. More workers help while cores are "
            "idle: docs/runbook.md#cifarqueuegrows.",
            "s",
            Query("job:torchserve_queue_seconds:mean5m", "mean of 5 minutes"),
            Query("threshold:torchserve_queue:seconds", "alert threshold", "threshold"),
            width=6,
        ),
        timeseries(
            "Batch size",
            "Mean number of requests in a batch, at most 16. It grows with the load before the queue does.",
            "none",
            Query(
                f"sum by (model_version) (rate(cifar_batch_size_sum{{{VERSION}}}[$__rate_interval])) "
                f"/ (sum by (model_version) (rate(cifar_batch_size_count{{{VERSION}}}[$__rate_interval])) > 0)",
                "{{model_version}}",
            ),
            width=6,
        ),
        timeseries(
            "Live workers by version",
            "Workers by version, counted by their heartbeats. Fewer than asked for: "
            "docs/runbook.md#cifarworkersrestart.",
            "none",
            Query(f"version:cifar_live_workers:count1m{{{VERSION}}}", "{{model_version}}"),
            width=6,
        ),
        timeseries(
            "Memory",
            "Used and available memory of the machine that TorchServe runs on, reported once a minute. Where none is "
            "left, workers are killed.",
            "mbytes",
            Query('sum by (instance) (MemoryUsed{job="torchserve"})', "used, {{instance}}"),
            Query('sum by (instance) (MemoryAvailable{job="torchserve"})', "available, {{instance}}"),
            width=6,
        ),
        timeseries(
            "Responses by status",
            "All responses of the server a second: predictions, scrapes, pings, the management API, and what is no "
            "HTTP, which TorchServe answers with 500. Failed predictions are in the error ratio.",
            "reqps",
            Query(_answers("Requests2XX"), "2xx"),
            Query(_answers("Requests4XX"), "4xx"),
            Query(_answers("Requests5XX"), "5xx"),
            width=12,
        ),
        timeseries(
            "Worker utilization",
            "Approximate share of time in which workers are busy: mean time of a request, times batches a "
            "second, a live worker. Near 100 %, requests wait: docs/runbook.md#cifarqueuegrows.",
            "percentunit",
            Query(_BUSY, "{{model_version}}"),
            width=12,
        ),
    ]


def _answers(status: str) -> str:
    """Answers a second; a counter is absent until its first answer."""
    return f'sum(rate({status}{{job="torchserve"}}[$__rate_interval])) or vector(0)'


def _burn(ratio: str, budget: str) -> str:
    return f"{ratio} / scalar({budget})"
