"""Checks whether a cache is undamaged and whether it still matches the clips it was made from."""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from features.cache.hdf5 import CacheHeader, verify_cache
from features.cache.inspect import PendingParts, count_pending, describe_pending_parts
from features.cache.parts import CachePart, scan_parts
from features.cache.tables import row_to_clip
from features.errors import ArtifactError
from features.sources.urls import is_url
from features.types import Clip
from features.utils.command_line import EXIT_FAILED_ITEMS, EXIT_OK
from features.utils.file_identity import compute_content_digest, read_size_and_mtime
from features.utils.progress import make_progress_bar
from features.utils.text import format_count, make_printable

MAX_LISTED_FINDINGS = 10
_FINDING_MEANINGS = {
    "damaged": "cannot be read, or made with other settings",
    "missing": "in the source, but not in the cache",
    "vanished": "in the cache, but no longer in the source or on disk",
    "stale": "their content has changed since extraction",
    "failed": "recorded in the cache as failed",
}


@dataclass(frozen=True)
class Finding:
    """One clip or file with a problem."""

    path: str
    reason: str


@dataclass(frozen=True)
class Verification:
    """What `verify` found. The field names are the keys of its JSON output.

    A list of findings is None if its class was not checked.
    """

    cache: str
    made_by: str  # extraction | import
    content_digest: str  # "" if the cache is damaged
    clips: int
    rows: int
    waiting: PendingParts
    damaged: list[Finding]
    missing: list[Finding] | None
    vanished: list[Finding] | None
    stale: list[Finding] | None
    failed: list[Finding] | None

    @property
    def exit_code(self) -> int:
        """Exit code: 4 if the cache is damaged, 3 if there is any other finding, otherwise 0."""
        if self.damaged:
            return ArtifactError.exit_code
        return EXIT_FAILED_ITEMS if self.missing or self.vanished or self.stale or self.failed else EXIT_OK


def examine_cache(path: Path, clips: Sequence[Clip] | None) -> Verification:
    """Check the cache and its parts and, if `clips` are given, the files of these clips.

    Raises SettingsError if there is no cache. Damage is not raised; it is a finding.
    """
    parts, broken = scan_parts(path)
    damaged = [Finding(part.name, "damaged part; the next run extracts its clips again") for part in broken]
    header: CacheHeader | None = None
    try:
        header = verify_cache(path)
        damaged += _find_foreign_parts(header, parts)
    except ArtifactError as error:
        damaged.insert(0, Finding(path.name, str(error)))
    found = _compare_clips(header, parts, clips) if header and clips is not None else {}
    return Verification(
        cache=str(path),
        made_by="import" if header and header.spec.is_imported else "extraction",
        content_digest=header.content_digest if header else "",
        clips=len(set(header.clips.path.tolist())) if header else 0,
        rows=int(header.clips.length.sum()) if header else 0,
        waiting=count_pending(parts, broken),
        damaged=damaged,
        missing=found.get("missing"),
        vanished=found.get("vanished"),
        stale=found.get("stale"),
        failed=found.get("failed", _list_failures(header) if header else None),
    )


def describe_verification(verification: Verification, *, with_all: bool = False) -> str:
    """Return a report: one line for each class with its count and some names, then what to do."""
    lines = [f"{make_printable(verification.cache)}: {describe_pending_parts(verification.waiting)}"]
    if verification.content_digest:
        counts = f"{format_count(verification.clips, 'clip')}, {format_count(verification.rows, 'row')}"
        digest = verification.content_digest[:16]
        lines.insert(0, f"{make_printable(verification.cache)}: {counts}, content verified (sha256 {digest})")
    for name, meaning in _FINDING_MEANINGS.items():
        findings = getattr(verification, name)
        if findings is None:
            lines.append(f"{name:<9} not checked" + (" (give SOURCE to check)" if verification.content_digest else ""))
            continue
        lines.append(f"{name:<9} {len(findings)}" + (f"  {meaning}" if findings else ""))
        shown = findings if with_all else findings[:MAX_LISTED_FINDINGS]
        lines += [f"  {make_printable(finding.path)}: {make_printable(finding.reason)}" for finding in shown]
        if len(shown) < len(findings):
            lines.append(f"  … and {len(findings) - len(shown)} more (--all lists them)")
    return "\n".join([*lines, *_format_advice(verification)])


def _format_advice(verification: Verification) -> Iterator[str]:
    if not verification.content_digest:
        yield "the cache is damaged: delete it and create it again"
    elif verification.missing or verification.stale or verification.waiting.damaged:
        yield f"run the {verification.made_by} again to add missing clips and to redo stale or damaged ones"
    if verification.failed and verification.made_by == "import":
        yield "run the import again to retry the failed files"
    elif verification.failed:
        yield "run the extraction with --retry-failed to retry the failed clips"


def _find_foreign_parts(header: CacheHeader, parts: list[CachePart]) -> Iterator[Finding]:
    for part in parts:
        if differences := header.spec.without_reduction().differences(part.header.spec):
            yield Finding(part.path.name, f"a part with other settings ({'; '.join(differences)})")


def _list_failures(header: CacheHeader) -> list[Finding]:
    table = header.failures
    return [
        Finding(p, f"{s}: {r}") for p, s, r in zip(*map(list, (table.path, table.stage, table.reason)), strict=True)
    ]


def _compare_clips(header: CacheHeader, parts: list[CachePart], clips: Sequence[Clip]) -> dict[str, list[Finding]]:
    """Put each clip of the source and of the cache into at most one class of findings."""
    stored = {clip.path: clip for clip in _iterate_stored_clips(header)}
    failed = {finding.path: finding for finding in _list_failures(header)}
    waiting = {path for part in parts for path in part.header.clips.path.tolist()}
    found: dict[str, list[Finding]] = {name: [] for name in ("missing", "vanished", "stale", "failed")}
    unsure = []
    for clip in clips:
        known = stored.pop(clip.path, None)
        kind, reason = _classify_clip(clip, known, is_failed=clip.path in failed)
        if kind == "missing" and clip.path in waiting:
            reason = "extracted, but still in a part"
        if kind == "unsure" and known:
            unsure.append((clip, known))
        elif kind:
            found[kind].append(failed[clip.path] if kind == "failed" else Finding(clip.path, reason))
    found["vanished"] += [Finding(path, "no longer in the source") for path in stored]
    for clip, reason in _compare_contents(unsure):
        if reason:
            found["stale"].append(Finding(clip.path, reason))
        elif clip.path in failed:
            found["failed"].append(failed[clip.path])
    return {name: sorted(findings, key=lambda finding: finding.path) for name, findings in found.items()}


def _iterate_stored_clips(header: CacheHeader) -> Iterator[Clip]:
    for table in (header.clips, header.failures):
        for i in range(len(table)):
            yield row_to_clip(table, i)


def _classify_clip(clip: Clip, stored: Clip | None, *, is_failed: bool) -> tuple[str, str]:
    """Return the class of a clip and the reason.

    The class is empty if nothing is wrong, and `unsure` if only the content of the file can decide.
    """
    try:
        is_readable = stat.S_ISREG(os.stat(clip.file).st_mode) or clip.file.is_dir()
        now = read_size_and_mtime(clip.file)
    except OSError as error:
        if is_url(clip.path):  # downloaded files may be deleted
            return ("failed" if is_failed else "", "") if stored else ("missing", "never extracted")
        return "vanished", (error.strerror or str(error)).lower()
    if stored is None:
        return "missing", "never extracted"
    unchanged = "failed" if is_failed else ""
    if not is_readable:
        return (unchanged, "") if is_failed else ("stale", "no longer a regular file")
    if not stored.digest or now == (stored.size_bytes, stored.mtime_ns):
        return unchanged, ""
    if stored.size_bytes >= 0 and now[0] != stored.size_bytes:
        return "stale", f"was {stored.size_bytes} bytes, is now {now[0]}"
    return "unsure", ""


def _compare_contents(unsure: Sequence[tuple[Clip, Clip]]) -> Iterator[tuple[Clip, str]]:
    """Read the files whose modification time alone differs.

    Yields each clip with a description of its change, which is empty if the content is the same.
    """
    if not unsure:
        return
    with make_progress_bar(len(unsure), description="compare", unit="clip") as bar:
        for clip, known in unsure:
            yield clip, _describe_change(clip, known)
            bar.update()


def _describe_change(clip: Clip, stored: Clip) -> str:
    try:
        digest = compute_content_digest(clip.file)
    except OSError as error:
        return f"cannot be read: {(error.strerror or str(error)).lower()}"
    return "" if digest == stored.digest else "same size, different content"
