"""Is a cache whole, and does it still say the truth about the clips it was made of?"""

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
    "damaged": "cannot be read, or not of these features",
    "missing": "in the source, not in the cache",
    "vanished": "in the cache, their files are gone",
    "stale": "their content changed since",
    "failed": "in the failure ledger",
}


@dataclass(frozen=True)
class Finding:
    """One clip or file, and what is the matter with it."""

    path: str
    reason: str


@dataclass(frozen=True)
class Verification:
    """What `verify` found. The field names are the keys of its JSON; a class is None where it was not looked at."""

    cache: str
    made_by: str  # extraction | import
    content_digest: str  # empty where the cache is damaged
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
        """4 damaged, 3 anything else that is not well, 0 all well."""
        if self.damaged:
            return ArtifactError.exit_code
        return EXIT_FAILED_ITEMS if self.missing or self.vanished or self.stale or self.failed else EXIT_OK


def examine_cache(path: Path, clips: Sequence[Clip] | None) -> Verification:
    """Checks the cache and its parts and, where `clips` are given, the files of these.

    Raises SettingsError where there is no cache; damage is a finding.
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
    """One line a class with its count, some names under it, and what to do."""
    lines = [f"{make_printable(verification.cache)}: {describe_pending_parts(verification.waiting)}"]
    if verification.content_digest:
        held = f"{format_count(verification.clips, 'clip')}, {format_count(verification.rows, 'row')}"
        lines.insert(
            0,
            f"{make_printable(verification.cache)}: {held}, content as written (sha256 {verification.content_digest[:16]})",
        )
    for name, meaning in _FINDING_MEANINGS.items():
        findings = getattr(verification, name)
        if findings is None:
            lines.append(f"{name:<9} not looked at" + (" (give the SOURCE)" if verification.content_digest else ""))
            continue
        lines.append(f"{name:<9} {len(findings)}" + (f"  {meaning}" if findings else ""))
        shown = findings if with_all else findings[:MAX_LISTED_FINDINGS]
        lines += [f"  {make_printable(finding.path)}: {make_printable(finding.reason)}" for finding in shown]
        if len(shown) < len(findings):
            lines.append(f"  … and {len(findings) - len(shown)} more (--all names them)")
    return "\n".join([*lines, *_format_advice(verification)])


def _format_advice(verification: Verification) -> Iterator[str]:
    if not verification.content_digest:
        yield "the cache is damaged: delete it and make it again"
    elif verification.missing or verification.stale or verification.waiting.damaged:
        yield f"running the {verification.made_by} again takes in what is missing and makes anew what is stale or damaged"
    if verification.failed and verification.made_by == "import":
        yield "running the import again tries the failed ones again"
    elif verification.failed:
        yield "running it with --retry-failed tries the failed ones again"


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
    """Each clip of the source and of the cache in at most one class."""
    stored = {clip.path: clip for clip in _iterate_stored_clips(header)}
    failed = {finding.path: finding for finding in _list_failures(header)}
    waiting = {path for part in parts for path in part.header.clips.path.tolist()}
    found: dict[str, list[Finding]] = {name: [] for name in ("missing", "vanished", "stale", "failed")}
    unsure = []
    for clip in clips:
        known = stored.pop(clip.path, None)
        kind, reason = _classify_clip(clip, known, is_failed=clip.path in failed)
        if kind == "missing" and clip.path in waiting:
            reason = "waits in a part"
        if kind == "unsure" and known:
            unsure.append((clip, known))
        elif kind:
            found[kind].append(failed[clip.path] if kind == "failed" else Finding(clip.path, reason))
    found["vanished"] += [Finding(path, "not in the source any more") for path in stored]
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
    """The class of a clip and why; an empty class where all is well, `unsure` where only its content can tell."""
    try:
        is_readable = stat.S_ISREG(os.stat(clip.file).st_mode) or clip.file.is_dir()
        now = read_size_and_mtime(clip.file)
    except OSError as error:
        if is_url(clip.path):  # a download may be thrown away
            return ("failed" if is_failed else "", "") if stored else ("missing", "never extracted")
        return "vanished", (error.strerror or str(error)).lower()
    if stored is None:
        return "missing", "never extracted"
    as_before = "failed" if is_failed else ""
    if not is_readable:
        return (as_before, "") if is_failed else ("stale", "not a regular file any more")
    if not stored.digest or now == (stored.size_bytes, stored.mtime_ns):
        return as_before, ""
    if stored.size_bytes >= 0 and now[0] != stored.size_bytes:
        return "stale", f"{stored.size_bytes} bytes then, {now[0]} now"
    return "unsure", ""


def _compare_contents(unsure: Sequence[tuple[Clip, Clip]]) -> Iterator[tuple[Clip, str]]:
    """Reads the files whose time alone differs; gives each clip and how it changed, empty where it did not."""
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
    return "" if digest == stored.digest else "as long as before, other content"
