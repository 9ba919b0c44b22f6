"""Settings of inference: section `infer` of a settings file."""

from pathlib import Path

from pydantic import Field

from features.config import RunSettings


class InferSettings(RunSettings):
    """Section `infer` of a settings file."""

    weights: str = "auto"
    """`auto` or the path of the backbone's weights."""
    label_map: Path | None = None
    """A YAML file that maps the labels of the sources to labels of the model, as in section `extract`."""
    cache: Path | None = None
    """A cache. Features are read from it where it has them, and new ones are added to it."""
    window_seconds: float | None = Field(None, gt=0)
    """Longer videos are split into windows of this length. Default: the length of the training clips."""
    stride_seconds: float | None = Field(None, gt=0)
    """Seconds from the start of one window to the start of the next. Default: half a window."""
    threshold: float | None = Field(None, ge=0, le=1)
    """Minimum probability for the positive label and for the start of an event. Default: the model's threshold."""
    false_alarms_per_hour: float | None = Field(None, gt=0)
    """Instead of `threshold`: use one whose rate of false alarms in the model's evaluation is bounded by this."""
    leave: float | None = Field(None, ge=0, le=1)
    """An event goes on until the probability falls below this value. Default: four fifths of the threshold."""
    min_seconds: float = Field(0.0, ge=0)
    """Events shorter than this are dropped."""
    merge_seconds: float | None = Field(None, ge=0)
    """Events with a gap of at most this are merged into one. Default: one stride."""
    cooldown_seconds: float = Field(0.0, ge=0)
    """After an event, no other event starts for this many seconds."""
    event_labels: tuple[str, ...] = ()
    """Labels that events are found for. Default: the positive label; with three or more labels, all that are not
    harmless by name (such as "normal")."""
    unknown_share: float = Field(0.02, ge=0, lt=1)
    """Share of clips like the training clips that may be marked as unknown. 0 marks none."""
    zero_shot: Path | None = None
    """A JSON file of labels and prompts with which CLIP names unknown clips."""
    truth: Path | None = None
    """A CSV file of true events (path, start, end, label) with which the report is compared."""
    tolerance_seconds: float = Field(0.0, ge=0)
    """An event also counts as found if it misses the true event by at most this many seconds."""
    annotate: bool = False
    """Whether to write annotated videos, with label, probability, events and timeline drawn in."""
    highlights: bool = False
    """Whether to write one video of all events."""
    parquet: bool = False
    """Whether to write the tables as Parquet too."""
