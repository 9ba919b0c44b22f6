"""Texts that a run prints before and after it."""

from collections.abc import Sequence
from pathlib import Path

from features.backbones.registry import get_backbone
from features.cache.inspect import count_labels, make_label_table
from features.cache.parts import parts_folder
from features.cache.plan import UpdatePlan, damaged_path
from features.cache.update import ExtractionSummary
from features.spec import FeatureSpec, describe_reduction, describe_spec
from features.types import Clip
from features.utils.text import format_count, format_table, make_printable, merge_similar_reasons


def describe_plan(plan: UpdatePlan) -> str:
    """Return what would be done and what is already done, one fact per line."""
    clips = format_count(len(plan.clips), "clip")
    if not plan.shard.is_single:
        clips += f", of which shard {plan.shard} takes {plan.total}"
    lines = [f"{clips}: {len(plan.pending)} to extract, {plan.cached} in the cache already"]
    if touched := sum(bool(clip.digest) for clip in plan.pending):
        lines.append(
            f"{touched} of them in the cache, but with another file size or time; they are extracted only if changed"
        )
    if plan.failed_before:
        failed = format_count(plan.failed_before, "clip")
        lines.append(f"{failed} failed before and will not be tried again (use --retry-failed to try again)")
    if plan.unlisted:
        verb, pronoun = ("is", "it stays") if plan.unlisted == 1 else ("are", "they stay")
        lines.append(
            f"{format_count(plan.unlisted, 'clip')} of the cache {verb} not in this source; {pronoun} in the cache"
        )
    if plan.damage:
        lines.insert(
            0, f"{plan.damage}: it is renamed to {damaged_path(plan.output).name}, and its clips are extracted again"
        )
    lines += [f"damaged part {path.name} is deleted; its clips are extracted again" for path in plan.damaged_parts]
    return "\n".join(lines)


def describe_dry_run(plan: UpdatePlan, spec: FeatureSpec, output: Path, *, where: str) -> str:
    """Return the text of a dry run: the plan, the kind of features, where they would be made, and the effect."""
    about = [("reduction", spec.reduction), ("licence", get_backbone(spec.backbone).licence), ("on", where)]
    pairs = [*describe_spec(spec), *about, *_describe_clips(plan.clips)]
    lines = [describe_plan(plan), *(f"  {name:<10} {words}" for name, words in pairs)]
    labels = count_labels((clip.label, clip.split) for clip in plan.clips)
    lines += ["", *(f"  {line}" for line in format_table(make_label_table(labels))), ""]
    if plan.has_parts:
        lines.append(f"parts of an unfinished run in {parts_folder(output)} would be added")
    change = "would be extended" if output.is_file() else "would be created"
    if not plan.pending and not plan.has_parts:
        change = "has all of them; only changed labels, groups and splits would be updated"
    return "\n".join([*lines, f"{output} {change}; this was a dry run, nothing was written"])


def _describe_clips(clips: Sequence[Clip]) -> list[tuple[str, str]]:
    """Return the number of files and groups that the clips come from."""
    parts = sum(clip.is_part for clip in clips)
    folders = sum(clip.file.is_dir() for clip in clips)
    kinds = [
        format_count(n, noun) for n, noun in ((len(clips) - folders, "video file"), (folders, "image folder")) if n
    ]
    part_note = [f"{parts} of them parts of longer videos"] if parts else []
    groups = len({clip.group for clip in clips} - {""})
    return [("clips", ", ".join([*kinds, *part_note])), ("groups", str(groups) if groups else "none known")]


def describe_summary(summary: ExtractionSummary, output: Path) -> str:
    """Return the closing lines: counts, speed, what limited it, one line per failure reason, and the cache."""
    lines = [
        f"{summary.extracted} extracted, {summary.cached} kept, {summary.failed} failed in {summary.seconds:.1f} s"
    ]
    if summary.extracted:
        lines.append(_describe_pace(summary))
    if summary.partial:
        lines.append(f"{format_count(summary.partial, 'clip')} decoded only in part, with status `partial`")
    lines += [
        f"  failed {count} x {make_printable(reason)}" for reason, count in merge_similar_reasons(summary.failures)
    ]
    return "\n".join([*lines, _describe_result(summary, output)])


def _describe_pace(summary: ExtractionSummary) -> str:
    cpu_seconds = summary.decode_seconds + summary.encode_seconds
    bottleneck = "decoding" if summary.decode_seconds > summary.encode_seconds else "encoding"
    share = max(summary.decode_seconds, summary.encode_seconds) / max(cpu_seconds, 1e-9)
    rate = summary.extracted / max(summary.seconds, 1e-9)
    frames = summary.frames / max(summary.seconds, 1e-9)
    return f"{rate:.1f} clips/s, {frames:.0f} frames/s; limited by {bottleneck}, {share:.0%} of the CPU time"


def _describe_result(summary: ExtractionSummary, output: Path) -> str:
    if summary.is_stopped:
        return f"stopped; finished clips are in {parts_folder(output)}; run the same command again to continue"
    header = summary.header
    if summary.unfinished:
        done = summary.source_clips - summary.unfinished
        return (
            f"{done} of {format_count(summary.source_clips, 'clip')} are done, in parts beside {output}; the last "
            "shard, or a run without --shard, builds the cache"
        )
    if header is None:
        return f"no clip could be extracted; {output} was not written"
    rows = int(header.clips.length.sum())
    reduction = describe_reduction(header.spec.reduction, header.reduction_fitted_on)
    clips = format_count(len(set(header.clips.path.tolist())), "clip")
    if len(header.spec.views) > 1:
        clips += f" in {len(header.spec.views)} views"
    return f"{output}: {clips}, {rows} rows, fingerprint {header.fingerprint}, reduction {reduction}"
