"""Training clips on the device: all views in one tensor, the clips of an epoch, outputs that are computed once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from hazard.data.splits import RowIndices
from hazard.models.heads.motion_inputs import MotionInputs
from hazard.models.heads.pooled_ridge import PooledRidge
from hazard.models.pooling import limit_batch
from hazard.types import Sequences

BLOCK_CLIPS = 256
"""Clips in one forward pass without gradients."""
MAX_FROZEN_CACHE_BYTES = 2**29
"""Memory limit for the cached outputs of all members of an ensemble together."""


@dataclass(frozen=True)
class DeviceClips:
    """All clips, view after view, the original view first: clip b of view v is row v B + b."""

    x: Tensor  # (V B, T, D), float16 or float32
    mask: Tensor  # (V B, T)
    y: Tensor  # (B,)

    @classmethod
    def load(cls, sequences: Sequences, device: torch.device) -> "DeviceClips":
        """Copy the clips to the device; on the CPU and without views they share memory with `sequences`."""
        x, mask = sequences.x, sequences.mask
        if sequences.views:
            x = np.concatenate([x, *(view.x for view in sequences.views)])
            mask = np.concatenate([mask, *(view.mask for view in sequences.views)])
        return cls(*(torch.from_numpy(column).to(device) for column in (x, mask, sequences.y)))

    @property
    def view_count(self) -> int:
        """Number of views V."""
        return len(self.x) // len(self.y)

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return x float32 (N, T, D) and mask (N, T) of `rows` (N,), which count through all views."""
        return self.x.index_select(0, rows).float(), self.mask.index_select(0, rows)

    @torch.no_grad()
    def compute(self, function: Callable[[Tensor, Tensor], Tensor], rows: Tensor | RowIndices) -> Tensor:
        """Return the results of a function of x and mask for `rows` (N,), a few clips at a time."""
        rows = torch.as_tensor(rows, device=self.x.device)
        return torch.cat([function(*self.take(block)) for block in rows.split(limit_batch(self.x, BLOCK_CLIPS))])

    def expand_views(self, rows: Tensor) -> Tensor:
        """Return the rows (V N,) of all views of the clips in `rows` (N,)."""
        starts = torch.arange(self.view_count, device=rows.device) * len(self.y)
        return (starts[:, None] + rows).flatten()

    def draw_epoch(self, rows: Tensor, random: torch.Generator, *, balanced: bool = False) -> tuple[Tensor, Tensor]:
        """Return the clips (N,) of one epoch in random order, and the row (N,) of a random view of each.

        Each clip of `rows` occurs once. With `balanced`, N clips are drawn with replacement, each label with the same
        probability.
        """
        views = torch.randint(self.view_count, (len(rows),), generator=random) if self.view_count > 1 else 0
        if balanced:
            y = self.y[rows].cpu()
            order = torch.multinomial(1 / y.bincount()[y].double(), len(y), replacement=True, generator=random)
        else:
            order = torch.randperm(len(rows), generator=random)
        clips = rows[order.to(rows.device)]
        return clips, clips + torch.as_tensor(views).to(rows.device) * len(self.y)


class FrozenPartCache:
    """Outputs of a head's frozen parts for all clips, computed once and looked up by row."""

    def __init__(
        self,
        head: nn.Module,
        clips: DeviceClips,
        rows: Tensor,
        *,
        dtype: torch.dtype,
        max_bytes: int,
        held_out: Tensor,
    ) -> None:
        """Compute what fits into `max_bytes` for `rows`, which count through all views.

        Of a pooled ridge its logits `held_out` (B, K) of the clips are looked up, the same for all views.
        """
        self._head, self._clips = head, clips
        self._table_rows = torch.zeros(len(clips.x), dtype=torch.int64, device=rows.device)
        self._table_rows[rows] = torch.arange(len(rows), device=rows.device)
        self._tables: list[tuple[MotionInputs | PooledRidge, Tensor]] = []
        for part in head.modules():
            if isinstance(part, PooledRidge) and len(rows):
                self._tables.append((part, held_out[rows % len(held_out)]))
            elif isinstance(part, MotionInputs) and len(rows):
                sample = part(*clips.take(rows[:1]))  # (1, T, W)
                size = sample.numel() * len(rows) * dtype.itemsize
                if size <= max_bytes:
                    max_bytes -= size
                    self._tables.append((part, clips.compute(lambda x, mask: part(x, mask).to(dtype), rows)))  # noqa: B023
        self._head_reads_x = not self._tables or self._check_head_reads_x(rows[:1], dtype)

    def logits(self, rows: Tensor) -> Tensor:
        """Return the head's logits (N, K) for `rows` (N,), which count through all views."""
        mask = self._clips.mask.index_select(0, rows)
        x = self._clips.take(rows)[0] if self._head_reads_x else self._make_nan_features(len(rows))
        with self._provide_outputs(rows):
            return self._head(x, mask)

    @torch.no_grad()
    def _check_head_reads_x(self, rows: Tensor, dtype: torch.dtype) -> bool:
        """Return whether anything but the frozen parts reads the features: if so, NaN features give NaN logits."""
        training = self._head.training
        self._head.eval()
        autocast = torch.autocast(rows.device.type, dtype, enabled=dtype == torch.bfloat16)
        with autocast, self._provide_outputs(rows):
            has_nan = not self._head(self._make_nan_features(len(rows)), self._clips.mask[rows]).isfinite().all()
        self._head.train(training)
        return bool(has_nan)

    def _make_nan_features(self, count: int) -> Tensor:
        return torch.full((1, 1, 1), torch.nan, device=self._clips.x.device).expand(count, *self._clips.x.shape[1:])

    @contextmanager
    def _provide_outputs(self, rows: Tensor) -> Iterator[None]:
        table_rows = self._table_rows[rows]
        for part, table in self._tables:
            part.cached_output = table.index_select(0, table_rows)
        try:
            yield
        finally:
            for part, _ in self._tables:
                part.cached_output = None
