"""report.html: one self-contained page. Its clips are embedded as data, which its script shows."""

from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import IO, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hazard.report.facts import ReportInfo
from hazard.report.page_data import encode_thumbnails, format_script_json, make_clip_detail, make_clip_row
from hazard.report.page_plan import MAX_THUMBNAIL_BYTES, PagePlan
from hazard.types import ClipPrediction
from hazard.utils.text import (
    escape_hidden,
    escape_hidden_html,
    format_clock,
    format_fact,
    format_page_count,
    format_percent,
    format_rounded_duration,
    format_timestamp,
    to_json_value,
)

CLIPS_PER_BLOCK = 64
"""Clips in one data element; the script parses the elements that it needs."""
SCRIPTS = ("text", "data", "review", "list", "chart", "detail", "print", "main")
DISPLAY_NAMES = {
    "roc_auc": "ROC AUC",
    "pr_auc": "PR AUC",
    "macro_f1": "macro F1",
    "ece": "ECE",
    "top5_accuracy": "top-5 accuracy",
    "part of the picture seen": "part of the frame used",
}
"""Names of metrics and model facts on the page, if they differ from their keys in report.json."""
MAX_CONFUSION_CLASSES = 20
"""Number of classes up to which the whole confusion matrix is shown."""
MAX_CONFUSED_PAIRS = 10
_FACTS_SHOWN_AS_SENTENCES = ("groups_known", "duplicate_pairs", "operating_points")
"""Facts about the model that the page states in sentences."""
_EVALUATION_COUNTS = ("clips", "failed", "other_labels")
_EVALUATION_KEYS = (*_EVALUATION_COUNTS, "confusion", "per_class", "worst", "events")
_EVENT_EVALUATION_KEYS = (
    "truth", "found", "recall", "false_alarms", "misnamed", "hours", "false_alarms_per_hour", "delay_seconds", "missed",
    "false",
)  # fmt: skip
MAX_OPERATING_POINTS = 3
_CLIPS_PLACEHOLDER = "<!--clips-->"
"""Place of the clips. Foreign text cannot contain it, because it is escaped."""


@contextmanager
def open_html_page(
    file: Path, info: ReportInfo, plan: PagePlan, evaluation: Mapping[str, object] | None
) -> Iterator[Callable[[ClipPrediction], None]]:
    """Open the page; give a function that writes one clip. It takes all clips in the planned order, failed ones too."""
    head, tail = _render_page(info, plan, evaluation).split(_CLIPS_PLACEHOLDER)
    with open(file, "w", encoding="utf-8", errors="backslashreplace", newline="") as handle:
        handle.write(head)
        blocks = _ClipBlockWriter(handle, info, plan)
        yield blocks.add
        blocks.flush()
        handle.write(tail)


class _ClipBlockWriter:
    """A writer of data elements of CLIPS_PER_BLOCK clips: rows, details and thumbnails, one line per clip."""

    def __init__(self, handle: IO[str], info: ReportInfo, plan: PagePlan) -> None:
        self.handle, self.info, self.plan = handle, info, plan
        self.clip_number = self.block_number = 0
        self.lines: list[tuple[str, str, str]] = []

    def add(self, clip: ClipPrediction) -> None:
        """Write the clip if the page lists it."""
        number, self.clip_number = self.clip_number, self.clip_number + 1
        if number not in self.plan.thumbnail_counts:
            return
        count = self.plan.thumbnail_counts[number]
        detail = make_clip_detail(clip, self.info, thumbnail_count=count, max_points=self.plan.max_curve_points)
        row = format_script_json(make_clip_row(number, clip, self.info))
        self.lines.append((row, format_script_json(detail), encode_thumbnails(clip, count)))
        if len(self.lines) == CLIPS_PER_BLOCK:
            self.flush()

    def flush(self) -> None:
        """Write the clips that are waiting as one block."""
        for letter, lines in zip("rdp", zip(*self.lines, strict=True), strict=False):
            text = "\n".join(lines)
            self.handle.write(f'<script type="text/plain" id="{letter}{self.block_number}">{text}</script>\n')
        self.block_number += bool(self.lines)
        self.lines.clear()


def _render_page(info: ReportInfo, plan: PagePlan, evaluation: Mapping[str, object] | None) -> str:
    """Render the page without its clips."""
    evaluation = _fill_missing_keys(evaluation)
    return _make_environment().get_template("report.html.j2").render(
        info=info,
        summary=plan.summary,
        plan=plan,
        blocks=-(-plan.listed_clips // CLIPS_PER_BLOCK),
        evaluation=evaluation,
        evaluation_metrics=_find_evaluation_metrics(evaluation),
        confusion=_make_confusion_table(evaluation),
        model_metrics=_find_metrics(info.model),
        facts=_select_plain_facts(info.model),
        points=_select_operating_points(info.model),
        meta=Markup(format_script_json(_make_script_metadata(info, plan, evaluation))),
        style=Markup(_read_template_file("report.css")),
        script=Markup("".join(['"use strict";\n', *(_read_template_file(f"report_{name}.js") for name in SCRIPTS)])),
        thumbnail_megabytes=MAX_THUMBNAIL_BYTES // 2**20,
    )  # fmt: skip


def _make_script_metadata(info: ReportInfo, plan: PagePlan, evaluation: Mapping[str, Any]) -> dict[str, object]:
    """Return what the script needs besides the clips."""
    events = evaluation.get("events") or {}
    return {
        "labels": info.labels,
        "positive": info.labels.index(info.positive_label) if info.positive_label else -1,
        "threshold": info.threshold,
        "enter": {rule.column: rule.on_threshold for rule in info.rules},
        "report": sha256(
            format_script_json([info.created, info.source, to_json_value(info.model)]).encode()
        ).hexdigest()[:16],
        "title": f"Clip report – {escape_hidden(info.source)}",
        "listed": plan.listed_clips,
        "clips": plan.summary.looked_at,
        "events": plan.summary.events,
        "failed": plan.summary.failed,
        "failures": plan.failures,
        "worst": evaluation.get("worst") or [],
        "missed": events.get("missed") or [],
        "false": events.get("false") or [],
    }


def _fill_missing_keys(evaluation: Mapping[str, object] | None) -> dict[str, Any]:
    """Return the evaluation in JSON types, with None for each missing key; empty if there is no evaluation."""
    if not evaluation:
        return {}
    given: Any = to_json_value(evaluation)
    events = dict.fromkeys(_EVENT_EVALUATION_KEYS) | given["events"] if given.get("events") else None
    return dict.fromkeys(_EVALUATION_KEYS) | given | {"events": events}


def _find_metrics(facts: Mapping[str, object]) -> dict[str, Mapping[str, object]]:
    """Return the metrics among a model's facts: mappings with a value, at the top or one level down."""
    nested = [value for value in facts.values() if isinstance(value, Mapping)]
    return {
        key: value
        for level in (facts, *nested)
        for key, value in level.items()
        if isinstance(value, Mapping) and isinstance(value.get("value"), (int, float))
    }


def _find_evaluation_metrics(evaluation: Mapping[str, Any]) -> dict[str, Mapping[str, object]]:
    """Return the metrics of an evaluation: mappings with a value, and plain numbers that are not counts of clips."""
    plain_metrics = {
        k: {"value": v} for k, v in evaluation.items() if isinstance(v, (int, float)) and k not in _EVALUATION_COUNTS
    }
    return plain_metrics | _find_metrics({key: value for key, value in evaluation.items() if key != "events"})


def _select_plain_facts(model: Mapping[str, object]) -> dict[str, object]:
    """Return the facts that the page lists: neither tables nor facts that it states in sentences."""
    return {k: v for k, v in model.items() if k not in _FACTS_SHOWN_AS_SENTENCES and _is_plain_fact(v)}


def _is_plain_fact(value: object) -> bool:
    """Return whether a fact is a plain value or a list of them, not a mapping or a table."""
    items = value if isinstance(value, (list, tuple)) else [value]
    return not any(isinstance(item, Mapping) for item in items)


def _select_operating_points(model: Mapping[str, object]) -> list[Mapping[str, Any]]:
    """Return the first few operating points, one for each threshold."""
    points = model.get("operating_points")
    by_threshold = {point["threshold"]: point for point in points} if isinstance(points, (list, tuple)) else {}
    return list(by_threshold.values())[:MAX_OPERATING_POINTS]


def _make_confusion_table(evaluation: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the rows of the confusion matrix and its most frequent mistakes; the page shows these if it is large."""
    table = evaluation.get("confusion")
    if not table or not table.get("labels"):
        return None
    labels, counts = table["labels"], table["counts"]
    pairs = [(n, labels[i], labels[j]) for i, row in enumerate(counts) for j, n in enumerate(row) if i != j and n]
    return {
        "labels": labels,
        "rows": [(label, [(n, n / max(sum(row), 1)) for n in row]) for label, row in zip(labels, counts, strict=True)],
        "pairs": sorted(pairs, key=lambda pair: -pair[0])[:MAX_CONFUSED_PAIRS],
        "is_large": len(labels) > MAX_CONFUSION_CLASSES,
    }


def _read_template_file(name: str) -> str:
    return files("hazard.report").joinpath("templates", name).read_text(encoding="utf-8")


def _make_environment() -> Environment:
    loader = PackageLoader("hazard.report")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "clock": format_clock,
        "counted": format_page_count,
        "duration": format_rounded_duration,
        "fact": format_fact,
        "marked": escape_hidden_html,
        "moment": format_timestamp,
        "percent": format_percent,
        "readable": escape_hidden,
        "display_name": lambda key: DISPLAY_NAMES.get(key, key.replace("_", " ")),
        "csp_hash": lambda text: "sha256-" + b64encode(sha256(text.encode()).digest()).decode(),
    }
    return environment
