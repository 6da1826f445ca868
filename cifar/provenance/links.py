"""The links of a trace: what an archive says of where it comes from, each held against all who should say the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar.archives.archive import digest_path, read_digest
from cifar.provenance.archive import TracedArchive
from cifar.provenance.sources import LocalWeights, Tracked, check_commit
from cifar.server.desired_state import DESIRED_STATE_NAME, read_desired_state

_DIRTY = "-dirty"
_NOT_SAID = "the export did not record it"
# training/calibrate.py may set it in training.json when the run is over.
_SET_LATER = ("model.flip_tta", "model.mirror")
_SERVED = ("weights_digest", "git_commit", "data_digest", "mlflow_run", "accuracy")


@dataclass(frozen=True)
class Link:
    """One link of the chain.

    Attributes:
        name: archive, TorchScript, weights, run, commit, data, parameters, accuracy or server.
        value: what the archive says of it, in full; None: nothing.
        holds: None where it could not be checked.
        note: who says the same, what contradicts it, or why it could not be checked.
    """

    name: str
    value: str | float | None
    holds: bool | None
    note: str


@dataclass(frozen=True)
class Finding:
    """What one check came to, in the terms of Link."""

    holds: bool | None
    note: str


@dataclass(frozen=True)
class Evidence:
    """All that was found out about an archive, before any of it is compared.

    Attributes:
        archive: it.
        store: the model store.
        checkout: of the repository.
        weights: that it was made of.
        tracked: what MLflow says.
        server: what the running server says of the archive's version, or why it says nothing.
        server_url: its management API.
    """

    archive: TracedArchive
    store: Path
    checkout: Path
    weights: LocalWeights
    tracked: Tracked
    server: dict[str, Any] | str
    server_url: str


_Checked = tuple[str | float | None, list[Finding]]  # the link's value, and what its checks came to


def check_links(evidence: Evidence) -> tuple[Link, ...]:
    """Check every link, from the archive to the server that runs it; raises InvalidStateFile (cifar.common.errors)."""
    first = _judge("archive", *_check_archive(evidence))
    if evidence.archive.model_digest is None:
        return first, *(Link(name, None, None, "the archive cannot be read") for name in _CHECKS)
    return first, *(_judge(name, *check(evidence)) for name, check in _CHECKS.items())


def compare(value: object, said: Mapping[str, object]) -> list[Finding]:
    """Hold a value against what others say of it.

    Args:
        value: what the archive says; None: nothing.
        said: by who says it; None where a source has nothing to say.
    """
    if value is None:
        return [Finding(None, _NOT_SAID)]
    told = {who: statement for who, statement in said.items() if statement is not None}
    findings = [Finding(False, f"{who} says {statement}") for who, statement in told.items() if statement != value]
    agreeing = ", ".join(who for who, statement in told.items() if statement == value)
    return [*findings, Finding(True, f"as in {agreeing}")] if agreeing else findings


def list_parameters(evidence: Evidence) -> dict[str, Any]:
    """Return how the network was trained, `section.key` to value: in the run's words, else in training.json's."""
    run = evidence.tracked.run
    return dict(run.params) if run and run.params else _recorded_parameters(evidence.weights)


def _judge(name: str, value: str | float | None, findings: Sequence[Finding]) -> Link:
    """Sum up: one contradiction breaks a link; else it holds as the first finding does, on which the others build."""
    broken = [finding for finding in findings if finding.holds is False]
    holds = False if broken else findings[0].holds
    shown = broken or [finding for finding in findings if not holds or finding.holds]
    return Link(name, value, holds, "; ".join(finding.note for finding in shown))


def _first_or(findings: list[Finding], otherwise: str) -> list[Finding]:
    return findings or [Finding(None, otherwise)]


def _check_archive(evidence: Evidence) -> _Checked:
    archive = evidence.archive
    beside = digest_path(archive.path)
    said: dict[str, object] = {beside.name: _read_digest(archive.path)}
    if archive.path.resolve().parent == evidence.store.resolve():
        serving = read_desired_state(evidence.store)
        deployed = (*serving.versions, *reversed(serving.history)) if serving else ()
        said[DESIRED_STATE_NAME] = next(
            (served.sha256 for served in deployed if served.archive == archive.path.name), None
        )
    damage = [Finding(False, archive.damage)] if archive.damage else []
    recorded = compare(archive.sha256, said)
    return archive.sha256, _first_or(
        damage + recorded, f"its digest was never recorded: no {beside.name}, not deployed"
    )


def _read_digest(archive: Path) -> str | None:
    try:
        recorded = read_digest(archive)
        return recorded and recorded[:64]
    except ValueError:
        return "nothing"
    except OSError as error:
        return f"nothing that can be read ({error.strerror})"


def _check_torchscript(evidence: Evidence) -> _Checked:
    archive, tracked = evidence.archive, evidence.tracked
    if tracked.registered:
        finding = Finding(True, f"version {tracked.registered.number} in MLflow's registry")
    elif tracked.other:
        number, digest = tracked.other.number, tracked.other.tags.get("model_digest")
        finding = Finding(False, f"version {number} in MLflow's registry, of the same weights, is the file {digest}")
    else:
        finding = Finding(None, tracked.silence or f"not registered in this store ({tracked.address})")
    foreign = [] if archive.metadata else [Finding(None, "it has no metadata.json: this project did not export it")]
    return archive.model_digest, [finding, *foreign]


def _check_weights(evidence: Evidence) -> _Checked:
    digest, weights = evidence.archive.named("weights_digest"), evidence.weights
    if digest is None:
        return None, [Finding(None, _NOT_SAID)]
    findings = [Finding(True, str(weights.file)) if weights.file else Finding(None, "no such weights in this checkout")]
    if weights.problem:
        findings.append(Finding(False, weights.problem))
    return digest, findings + compare(digest, {"the registered version": _registered(evidence, "weights_digest")})


def _check_run(evidence: Evidence) -> _Checked:
    run_id, tracked = evidence.archive.named("mlflow_run"), evidence.tracked
    if run_id is None:
        return None, [Finding(None, _NOT_SAID)]
    if tracked.run is None:
        finding = Finding(None, tracked.silence or f"not in this store ({tracked.address})")
    elif tracked.run.deleted:
        finding = Finding(False, "deleted; bring it back: mlflow runs restore")
    else:
        finished = tracked.run.status == "FINISHED"
        finding = Finding(finished, f"{tracked.run.status} in MLflow" + ("" if finished else ", expected FINISHED"))
    origin = tracked.registered and tracked.registered.trained_in
    said = {"training.json": evidence.weights.record.get("mlflow_run"), "the registered version": origin}
    return run_id, [finding, *compare(run_id, said)]


def _check_commit(evidence: Evidence) -> _Checked:
    commit = evidence.archive.named("git_commit")
    if commit is None:
        return None, [Finding(None, _NOT_SAID)]
    findings = [Finding(*check_commit(evidence.checkout, commit.removesuffix(_DIRTY)))]
    if commit.endswith(_DIRTY):
        findings.append(Finding(False, "the training's code had changes that were never committed"))
    return commit, findings + compare(commit, _origin(evidence, "git_commit"))


def _check_data(evidence: Evidence) -> _Checked:
    digest = evidence.archive.named("data_digest")
    said = _origin(evidence, "data_digest") | {"evaluation.json": _evaluated(evidence, "data_digest")}
    return digest, _first_or(compare(digest, said), "neither its run nor its weights are here")


def _check_parameters(evidence: Evidence) -> _Checked:
    parameters = list_parameters(evidence)
    if not parameters:
        return None, [Finding(None, "neither its run nor its weights are here")]
    count = f"{len(parameters)} recorded"
    recorded, run = _recorded_parameters(evidence.weights), evidence.tracked.run
    if run is None or not run.params:
        return count, [Finding(None, "in training.json alone: its run is not here")]
    both = [key for key in recorded.keys() & run.params.keys() if key not in _SET_LATER]
    findings = [
        Finding(False, f"{key} is {run.params[key]} in the run, {recorded[key]} in training.json")
        for key in sorted(both)
        if str(recorded[key]) != run.params[key]
    ]
    if both and not findings:
        return count, [Finding(True, "as in the run, training.json")]
    return count, _first_or(findings, "in the run alone: its weights are not here")


def _check_accuracy(evidence: Evidence) -> _Checked:
    run, weights = evidence.tracked.run, evidence.weights
    recorded = evidence.archive.metadata.get("accuracy")
    accuracy = float(recorded) if isinstance(recorded, int | float) else None
    said = {
        "the run": run and run.accuracy,
        "evaluation.json": _evaluated(evidence, "accuracy"),
        "the registered version": _number(_registered(evidence, "accuracy")),
    }
    findings = _first_or(compare(accuracy, said), "neither its run nor its figures are here")
    measured = weights.evaluation.get("weights_digest")
    if measured not in (None, evidence.archive.named("weights_digest")):
        findings.append(Finding(False, f"evaluation.json is of other weights: {measured}"))
    return accuracy, findings


def _check_server(evidence: Evidence) -> _Checked:
    said, archive = evidence.server, evidence.archive
    if isinstance(said, str):
        return evidence.server_url, [Finding(None, said)]
    expected = {"version": archive.version} | {key: archive.metadata.get(key) for key in _SERVED}
    differing = [key for key, value in expected.items() if said.get(key) != value]
    broken = [Finding(False, f"it says {key} {said.get(key)}, the archive {expected[key]}") for key in differing]
    return evidence.server_url, broken or [Finding(True, f"it serves version {archive.version} of these weights")]


_CHECKS = {
    "TorchScript": _check_torchscript,
    "weights": _check_weights,
    "run": _check_run,
    "commit": _check_commit,
    "data": _check_data,
    "parameters": _check_parameters,
    "accuracy": _check_accuracy,
    "server": _check_server,
}


def _origin(evidence: Evidence, key: str) -> dict[str, object]:
    """Return what those say who know what the weights were made of."""
    run = evidence.tracked.run
    return {
        "the run": run and run.tags.get(key),
        "training.json": evidence.weights.record.get(key),
        "the registered version": _registered(evidence, key),
    }


def _registered(evidence: Evidence, key: str) -> str | None:
    registered = evidence.tracked.registered
    return registered.tags.get(key) if registered else None


def _evaluated(evidence: Evidence, key: str) -> object:
    """Return what evaluation.json says, if it is of these weights."""
    evaluation = evidence.weights.evaluation
    return evaluation.get(key) if evaluation.get("weights_digest") == evidence.archive.named("weights_digest") else None


def _number(text: str | None) -> object:
    try:
        return text and float(text)
    except ValueError:
        return text


def _recorded_parameters(weights: LocalWeights) -> dict[str, Any]:
    sections = {name: weights.record.get(name) for name in ("model", "train")}
    return {
        f"{name}.{key}": value
        for name, section in sections.items()
        if isinstance(section, dict)
        for key, value in section.items()
    }
