"""hazard.experiments.model_card."""

from typing import Any

import numpy as np

from hazard.experiments import random_folds
from hazard.experiments.cross_validation import Evaluation
from hazard.metrics import classification as metrics
from hazard.models.predictor import ModelInfo
from hazard.types import Sequences

NO_GROUP_WARNING = (
    "{count} of {clips} clips name no group. Clips cut from one source video may lie on both sides of the split, "
    "so these figures may be inflated; give a manifest with a group column."
)

SEARCH_REMARK = (
    "settings: the best of {trials} trials on inner folds of each part's training clips; test clips had no say"
)

NO_LEAKAGE_REMARK = "every clip names its group, and no group lies on two sides of the split"


_USAGE_LINES = """\
This folder is all that it takes, wherever it is moved, besides the program (`pip install hazard-video`) and the
backbone's weights, which are found or downloaded, and refused if they are others. From where this file lies:

```
hazard-infer VIDEOS --model . -o report/     # report/report.html and predictions.csv
hazard export . --format onnx                # the same model as one ONNX file, for other programs
```

`metrics.json` holds all figures, `predictions.csv` what was said of each clip that was tested.""".splitlines()


def make_leakage_warnings(sequences: Sequences, leakage: dict[str, Any]) -> list[str]:
    """The warnings that figures may be too good; `leaks` as `leakage.report` gives it."""
    unknown = NO_GROUP_WARNING.format(count=sequences.clips_without_group, clips=len(sequences))
    return [*([] if sequences.groups_known else [unknown]), *leakage["warnings"]]


def format_remarks(metric_values: dict[str, Any]) -> list[str]:
    """What a run says of its figures besides the figures."""
    lines = []
    if chosen := metric_values.get("chosen_elsewhere"):
        lines.append(_format_model_choice(chosen))
    if random := metric_values.get("random_split"):
        lines.append(random_folds.format_leakage(random, metric_values))
    return lines


def _format_model_choice(chosen: dict[str, Any]) -> str:
    accuracy, area = (f"{chosen[name]['value']:.3f}" for name in ("accuracy", "roc_auc"))
    return f"with each fold's model chosen on the other folds: accuracy {accuracy}, ROC AUC {area}"


def format_model_card(
    info: ModelInfo, sequences: Sequences, result: Evaluation, metric_values: dict[str, Any], contenders: int
) -> str:
    """Markdown: what it is, what it was trained on, how it was measured, what it is worth, its limits."""
    clips = ", ".join(f"{label}: {int((sequences.y == k).sum())}" for k, label in enumerate(info.labels))
    lines = [
        f"# {info.name}",
        "",
        f"{'An' if info.kind == 'ensemble' else 'A'} {info.kind} that names clips as {', '.join(info.labels)}"
        + (
            f"; the alarm is for **{info.positive_label}**, from probability {info.threshold:g} on."
            if info.positive_label
            else "."
        ),
        "",
        "## Data",
        "",
        f"- {len(sequences)} labelled clips ({clips}), {len(np.unique(sequences.groups))} groups",
        f"- median clip: {info.window.duration_seconds:.2f} s, {info.window.steps} steps of {info.width} numbers",
        f"- features: {info.feature_spec.get('backbone', 'unknown')}, fingerprint {info.fingerprint}",
        *([f"- views that training drew from: {', '.join(sequences.view_names)}"] if sequences.views else []),
        f"- cache content: {info.cache_digest or 'unknown'}",
        "",
        "## How it was measured",
        "",
        f"- split: {info.split}; {len(np.unique(result.rows))} clips were predicted by a model that had not seen them",
        *(
            f"- leakage: {line}"
            for line in make_leakage_warnings(sequences, metric_values["leakage"]) or [NO_LEAKAGE_REMARK]
        ),
        *(f"- {line}" for line in format_remarks(metric_values)),
        *(
            [f"- {SEARCH_REMARK.format(trials=info.settings.tune)}"]
            if info.settings.tune and info.kind == "head"
            else []
        ),
        "- early stopping used validation clips that were none of those; they were not looked at before the end",
        "- intervals: 95 %, bootstrap over groups"
        + (f"; figures are means over {repeats} repeats" if (repeats := len(np.unique(result.repeats))) > 1 else ""),
        "",
        "## Figures",
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


def _format_metric_table(metric_values: dict[str, Any]) -> list[str]:
    names = [name for name in (*metrics.HEADLINE_METRICS, "top5_accuracy") if name in metric_values]
    rows = ["| figure | value | low | high |", "|---|---|---|---|"]
    for name in names:
        cells = " | ".join(f"{metric_values[name][key]:.3f}" for key in ("value", "low", "high"))
        rows.append(f"| {name} | {cells} |")
    return rows


def _format_calibration(info: ModelInfo, metric_values: dict[str, Any]) -> list[str]:
    return [
        f"Probabilities are scaled by temperature {info.temperature:.2f}, fitted on clips that the models had not "
        f"seen; without it ece is {metric_values['ece_uncalibrated']:.3f}. ece, nll and brier are of clips at a temperature "
        "that other groups chose."
    ]


def _format_false_alarms(metric_values: dict[str, Any]) -> list[str]:
    if "false_alarms_per_hour" not in metric_values:
        return []
    points = metric_values["false_alarms_per_hour"]
    if points is None:
        return [
            "",
            "False alarms per hour cannot be told: a clip's duration is unknown, or one label has no clips.",
        ]
    return [
        "",
        "One decision a clip, thresholds chosen on these very predictions:",
        "",
        "| false alarms per hour, at most | threshold | recall | achieved |",
        "|---|---|---|---|",
        *(f"| {p['target']:g} | {p['threshold']:.3f} | {p['recall']:.3f} | {p['achieved']:.2f} |" for p in points),
    ]


def _format_limits(info: ModelInfo, result: Evaluation, contenders: int) -> list[str]:
    refitted = len(np.unique(result.folds)) > 1
    lines = [
        "- It has only been measured on clips like those above: other cameras, scenes and clip lengths may do worse.",
        "- Its features must be made with the very settings that model.json holds; anything else is refused.",
        "- It is no substitute for a person who watches: expect misses and false alarms at the rates above.",
    ]
    if members := [f"{member.name} (weight {member.weight:g})" for member in info.members]:
        lines.append(f"- Its probabilities are the weighted mean of {', '.join(members)}.")
    if info.kind == "head":
        lines.append("- The head holds a linear classifier of the pooled clip: its score is not what order adds.")
    if info.settings.false_alarms_per_hour is not None:
        lines.append(
            f"- Its threshold was chosen on these very predictions, for {info.settings.false_alarms_per_hour:g} false "
            "alarms or fewer an hour of harmless video: expect more of them elsewhere."
        )
    if contenders > 1:
        lines.append(f"- It was the best of {contenders} models on these very folds, which flatters it a little.")
    if refitted and info.settings.keep == "folds":
        lines.append("- The saved model is the models of the folds together; the figures are of each alone.")
    elif refitted:
        lines.append(
            "- The saved model was fitted again on all labelled clips after the folds; the figures are the folds'."
        )
    libraries = ", ".join(f"{name} {number}" for name, number in info.libraries.items())
    return [*lines, f"- Trained with {libraries}."]
