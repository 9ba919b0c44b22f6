"""The model card: what a model is, how it was measured, how good it is, and its limits."""

from typing import Any

import numpy as np

from hazard.experiments import random_folds
from hazard.experiments.cross_validation import Evaluation
from hazard.metrics import classification as metrics
from hazard.metrics.operating_points import hours_needed
from hazard.models.predictor import ModelInfo
from hazard.types import Sequences
from hazard.utils.text import format_rounded_duration

NO_GROUP_WARNING = (
    "{count} of {clips} clips have no group. Clips cut from one source video may be on both sides of the split, "
    "so these metrics may be inflated; add a group column to the manifest."
)

SEARCH_REMARK = (
    "settings: the best of {trials} trials on inner folds of each fold's training clips; test clips were not used"
)

NO_LEAKAGE_REMARK = "every clip has a group, and no group is on both sides of the split"


_USAGE_LINES = """\
To use the model you need this folder, which may be moved, the program (`pip install .` in its checkout) and the
backbone's weights. The weights are found or downloaded; other weights are rejected. Run in this folder:

```
hazard-infer VIDEOS --model . -o report/     # report/report.html and predictions.csv
hazard export . --format onnx                # the same model as one ONNX file, for other programs
```

`metrics.json` holds all metrics, `predictions.csv` the prediction for each test clip.""".splitlines()


def make_leakage_warnings(sequences: Sequences, leakage: dict[str, Any]) -> list[str]:
    """Return the warnings that metrics may be inflated; `leakage` is what `make_leakage_report` returns."""
    no_group_warning = NO_GROUP_WARNING.format(count=sequences.clips_without_group, clips=len(sequences))
    return [*([] if sequences.groups_known else [no_group_warning]), *leakage["warnings"]]


def format_remarks(metric_values: dict[str, Any]) -> list[str]:
    """Return remarks on the metrics: those of choosing a model, and those on random folds."""
    lines = []
    if chosen := metric_values.get("chosen_elsewhere"):
        lines.append(_format_model_choice(chosen))
    if half := metric_values.get("at_half"):
        lines.append(f"at threshold 0.5: accuracy {half['accuracy']:.3f}, recall {half['recall']:.3f}")
    if random := metric_values.get("random_split"):
        lines.append(random_folds.format_leakage(random, metric_values))
    return lines


def _format_model_choice(chosen: dict[str, Any]) -> str:
    accuracy, area = (f"{chosen[name]['value']:.3f}" for name in ("accuracy", "roc_auc"))
    return f"choosing each fold's model on the other folds: accuracy {accuracy}, ROC AUC {area}"


def format_model_card(
    info: ModelInfo, sequences: Sequences, result: Evaluation, metric_values: dict[str, Any], contenders: int
) -> str:
    """Return the model card as Markdown: data, evaluation, metrics, limits and use of the model.

    `contenders` is the number of models that were compared to choose this one.
    """
    clips = ", ".join(f"{label}: {int((sequences.y == k).sum())}" for k, label in enumerate(info.labels))
    lines = [
        f"# {info.name}",
        "",
        f"{'An' if info.kind == 'ensemble' else 'A'} {info.kind} that classifies clips as {', '.join(info.labels)}"
        + (
            f"; it flags a clip as **{info.positive_label}** at probability {info.threshold:g} or more."
            if info.positive_label
            else "."
        ),
        *_format_positive_guess(info, metric_values),
        "",
        "## Data",
        "",
        f"- {len(sequences)} labelled clips ({clips}), {len(np.unique(sequences.groups))} groups",
        f"- median clip: {info.window.duration_seconds:.2f} s, {info.window.steps} steps of {info.width} features",
        f"- features: {info.feature_spec.get('backbone', 'unknown')}, fingerprint {info.fingerprint}",
        *([f"- views used in training: {', '.join(sequences.view_names)}"] if sequences.views else []),
        f"- cache content: {info.cache_digest or 'unknown'}",
        "",
        "## How it was measured",
        "",
        f"- split: {info.split}; "
        f"{len(np.unique(result.rows))} clips were predicted by a model that was not trained on them",
        *(
            f"- leakage: {line}"
            for line in make_leakage_warnings(sequences, metric_values["leakage"]) or [NO_LEAKAGE_REMARK]
        ),
        *(f"- {line}" for line in metric_values["label_warnings"]),
        *(f"- {line}" for line in format_remarks(metric_values)),
        *(
            [f"- {SEARCH_REMARK.format(trials=info.settings.tune)}"]
            if info.settings.tune and info.kind == "head"
            else []
        ),
        "- early stopping used other clips (validation clips); the test clips were only used at the end",
        "- intervals: 95 %, over groups of clips, t distribution; a missing one says why"
        + (f"; metrics are means over {repeats} repeats" if (repeats := len(np.unique(result.repeats))) > 1 else ""),
        "",
        "## Metrics",
        "",
        *_format_metric_table(metric_values),
        "",
        *_format_calibration(info, metric_values),
        *_format_false_alarms(metric_values),
        "",
        "## Limits",
        "",
        *_format_limits(info, result, contenders),
        "",
        "## How to use it",
        "",
        *_USAGE_LINES,
    ]
    return "\n".join(lines) + "\n"


def _format_positive_guess(info: ModelInfo, metric_values: dict[str, Any]) -> list[str]:
    if metric_values.get("positive_label_source") != "guess":
        return []
    return [
        "",
        f"That alarms are for **{info.positive_label}** is a guess: the names of the labels do not tell. "
        "If it is wrong, train again with `--set positive_label=NAME`.",
    ]


def _format_metric_table(metric_values: dict[str, Any]) -> list[str]:
    names = [name for name in (*metrics.HEADLINE_METRICS, "top5_accuracy") if name in metric_values]
    at_half = metric_values.get("at_half")
    rows = ["| metric | value | low | high |", "|---|---|---|---|"]
    if at_half:
        rows = ["| metric | value | low | high | at threshold 0.5 |", "|---|---|---|---|---|"]
    for name in names:
        entry = metric_values[name]
        ends = ("–", "–") if "reason" in entry else (f"{entry['low']:.3f}", f"{entry['high']:.3f}")
        half = f" {at_half[name]:.3f} |" if at_half and name in at_half else " |" if at_half else ""
        rows.append(f"| {name} | {entry['value']:.3f} | {' | '.join(ends)} |{half}")
    if at_half:
        rows += ["", "Each clip was decided by a threshold that was chosen in the same way on clips of other groups."]
    reasons = {metric_values[name]["reason"] for name in names if "reason" in metric_values[name]}
    return rows + [line for reason in sorted(reasons) for line in ("", f"No interval: {reason}.")]


def _format_calibration(info: ModelInfo, metric_values: dict[str, Any]) -> list[str]:
    return [
        f"Logits are divided by temperature {info.temperature:.2f}, fitted on clips that the models were not "
        f"trained on; without it ece is {metric_values['ece_uncalibrated']:.3f}. For ece, nll and brier the "
        "temperature of each clip was fitted on other groups."
    ]


def _format_false_alarms(metric_values: dict[str, Any]) -> list[str]:
    if "false_alarms_per_hour" not in metric_values:
        return []
    points = metric_values["false_alarms_per_hour"]
    if points is None:
        return [
            "",
            "False alarms per hour are unknown: a clip's duration is unknown, or one label has no clips.",
        ]
    supported = [point for point in points if point["supported"]]
    table = [
        "",
        "One decision per clip. Thresholds and figures of this table are from these same predictions, on "
        f"{_format_hours(points[0])} of harmless video. The true rate is within the target with 95 % confidence if "
        "clips err independently; clips of one scene often err together.",
        "",
        "| false alarms per hour, at most | threshold | recall | false alarms | per hour | upper bound |",
        "|---|---|---|---|---|---|",
        *(
            f"| {p['target']:g} | {p['threshold']:.3f} | {p['recall']:.3f} "
            f"| {p['false_alarms']:.3g} | {p['achieved']:.2f} | {p['upper_bound']:.2f} |"
            for p in supported
        ),
    ]
    return [*(table if supported else []), *_format_unsupported([p for p in points if not p["supported"]])]


def _format_unsupported(points: list[dict[str, Any]]) -> list[str]:
    """Return what the strictest threshold did, and the hours that the targets of these points would take."""
    if not points:
        return []
    strictest = points[0]
    targets = ", ".join(
        f"{point['target']:g} per hour (takes {format_rounded_duration(hours_needed(point['target']) * 3600)})"
        for point in points
    )
    return [
        "",
        f"{strictest['false_alarms']:.3g} false alarms in {_format_hours(strictest)} of harmless video at threshold "
        f"{strictest['threshold']:.3f} (recall {strictest['recall']:.3f}); too little to measure a rate of {targets}. "
        f"The true rate may be up to {strictest['upper_bound']:.3g} per hour.",
    ]


def _format_hours(point: dict[str, Any]) -> str:
    return format_rounded_duration(point["hours"] * 3600)


def _format_share_of_ridge(result: Evaluation) -> str:
    improved = len({fold for fold, epoch in result.history if epoch.best})
    return (
        "- The head contains a ridge classifier of the pooled clip, so its score does not show what the order of frames"
        f" adds. Training lowered the validation loss of that classifier in {improved} of {len(result.models)} fits; "
        "in the others the head is the classifier alone."
    )


def _format_limits(info: ModelInfo, result: Evaluation, contenders: int) -> list[str]:
    has_folds = len(np.unique(result.folds)) > 1
    lines = [
        "- It was only measured on clips like those above; with other cameras, scenes or clip lengths it may do worse.",
        "- Its features must be extracted with exactly the settings in model.json; other features are rejected.",
        "- It does not replace a person who watches: expect misses and false alarms at the rates above.",
    ]
    if members := [f"{member.name} (weight {member.weight:g})" for member in info.members]:
        lines.append(f"- Its probabilities are the weighted mean of {', '.join(members)}.")
    if info.kind == "head" and info.settings.pooled_path:
        lines.append(_format_share_of_ridge(result))
    if info.settings.false_alarms_per_hour is not None:
        lines.append(
            "- Its threshold was chosen on all of these predictions, for at most "
            f"{info.settings.false_alarms_per_hour:g} false alarms per hour of harmless video; "
            "expect more of them on video unlike these clips."
        )
    if contenders > 1:
        lines.append(
            f"- It was the best of {contenders} models on these same folds, so its metrics are slightly too high."
        )
    if has_folds and info.settings.keep == "folds":
        lines.append("- The saved model averages the models of all folds; the metrics are those of the single models.")
    elif has_folds:
        lines.append("- The saved model was fitted again on all labelled clips; the metrics are those of the folds.")
    libraries = ", ".join(f"{name} {number}" for name, number in info.libraries.items())
    return [*lines, f"- Trained with {libraries}."]
