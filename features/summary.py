"""What a run says before and after it."""

from pathlib import Path

from features.extract import Plan, Summary
from features.parts import parts_folder


def describe_plan(plan: Plan) -> str:
    """One line a fact: what would be done, what is done already."""
    lines = [f"{_clips(len(plan.clips))}: {len(plan.todo)} to extract, {plan.kept} in the cache already"]
    if plan.failed_before:
        lines.append(f"{_clips(plan.failed_before)} failed before and are not tried again (--retry-failed tries them)")
    lines += [f"damaged part {path.name} is thrown away; its clips are extracted again" for path in plan.damaged_parts]
    return "\n".join(lines)


def describe_summary(summary: Summary, output: Path) -> str:
    """The closing lines: counts, what bounded the run, one line a failure reason, what the cache is."""
    lines = [f"{summary.extracted} extracted, {summary.kept} kept, {summary.failed} failed in {summary.seconds:.1f} s"]
    if summary.extracted:
        lines.append(_pace(summary))
    if summary.partial:
        lines.append(f"{_clips(summary.partial)} could be decoded only in part; they are marked `partial`")
    lines += [f"  failed {count} x {reason}" for reason, count in summary.failures.most_common()]
    return "\n".join([*lines, _closing(summary, output)])


def _pace(summary: Summary) -> str:
    spent = summary.decode_seconds + summary.encode_seconds
    bound = "decoding" if summary.decode_seconds > summary.encode_seconds else "encoding"
    share = max(summary.decode_seconds, summary.encode_seconds) / max(spent, 1e-9)
    rate = summary.extracted / max(summary.seconds, 1e-9)
    frames = summary.frames / max(summary.seconds, 1e-9)
    return f"{rate:.1f} clips/s, {frames:.0f} frames/s; {bound} took {share:.0%} of the workers' CPU time"


def _closing(summary: Summary, output: Path) -> str:
    if summary.is_stopped:
        return f"stopped; what was finished lies in {parts_folder(output)}; run the same command again to go on"
    header = summary.header
    if header is None:
        return f"no clip could be extracted; {output} was not written"
    rows = int(header.clips.length.sum())
    reduction = f"{header.spec.reduction}, fitted on {_ROWS[header.reduction_rows]}" if header.reduction else "none"
    return (
        f"{output}: {_clips(len(header.clips))}, {rows} rows, fingerprint {header.fingerprint}, reduction {reduction}"
    )


_ROWS = {"train": "the training split", "all": "all rows (no split is known)"}


def _clips(count: int) -> str:
    return f"{count} clip" if count == 1 else f"{count} clips"
