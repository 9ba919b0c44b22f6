"""Clips on the training device: every view in one tensor, which clips an epoch shows, what is computed once."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from hazard.models.heads.motion_inputs import MotionInputs
from hazard.models.heads.pooled_ridge import PooledPath
from hazard.types import Sequences

FIXED = (MotionInputs, PooledPath)
"""Parts that gradient steps leave as `fit_statistics` made them."""
BLOCK = 256
"""Clips that are computed at once where nothing is learned from them."""
KEPT_BYTES = 2**30
"""What all members of a committee together may keep of what is computed once."""


@dataclass(frozen=True)
class Clips:
    """All clips, view after view, the plain one first: clip b of view v is row v B + b."""

    x: Tensor  # (V B, T, D)
    mask: Tensor  # (V B, T)
    y: Tensor  # (B,)

    @classmethod
    def load(cls, sequences: Sequences, device: torch.device) -> "Clips":
        """On the CPU and without views, the very memory of `sequences`."""
        x, mask = sequences.x, sequences.mask
        if sequences.views:
            x = np.concatenate([x, *(view.x for view in sequences.views)])
            mask = np.concatenate([mask, *(view.mask for view in sequences.views)])
        return cls(*(torch.from_numpy(column).to(device) for column in (x, mask, sequences.y)))

    @property
    def views(self) -> int:
        """V."""
        return len(self.x) // len(self.y)

    def in_views(self, rows: Tensor) -> Tensor:
        """The rows (V N,) of all views of clips (N,)."""
        starts = torch.arange(self.views, device=rows.device) * len(self.y)
        return (starts[:, None] + rows).flatten()

    def draw(self, rows: Tensor, random: torch.Generator, *, balanced: bool = False) -> tuple[Tensor, Tensor]:
        """Clips (N,) of one epoch in random order, and the rows of the views that show them.

        Each of `rows` once; `balanced`: as many draws, with replacement, every label as likely as any other.
        """
        views = torch.randint(self.views, (len(rows),), generator=random) if self.views > 1 else 0
        if balanced:
            y = self.y[rows].cpu()
            order = torch.multinomial(1 / y.bincount()[y].double(), len(y), replacement=True, generator=random)
        else:
            order = torch.randperm(len(rows), generator=random)
        clips = rows[order.to(rows.device)]
        return clips, clips + torch.as_tensor(views).to(rows.device) * len(self.y)


class Once:
    """What the parts of a head that gradient steps leave alone make of clips: computed once, handed out by row."""

    def __init__(self, head: nn.Module, clips: Clips, rows: Tensor, *, dtype: torch.dtype, max_bytes: int) -> None:
        self._head, self._clips = head, clips
        self._at = torch.zeros(len(clips.x), dtype=torch.int64, device=rows.device)
        self._at[rows] = torch.arange(len(rows), device=rows.device)
        self._tables: list[tuple[MotionInputs | PooledPath, Tensor]] = []
        for part in head.modules():
            if isinstance(part, FIXED) and len(rows):
                wide = part(clips.x[rows[:1]], clips.mask[rows[:1]])  # (1, ...)
                kept = wide.dtype if wide.ndim == 2 else dtype  # logits stay exact
                size = wide.numel() * len(rows) * kept.itemsize
                if size <= max_bytes:
                    max_bytes -= size
                    self._tables.append((part, self._compute(part, rows, kept)))
        self._reads_x = not self._tables or self._asks_for_x(rows[:1], dtype)

    def logits(self, rows: Tensor) -> Tensor:
        """The head's logits (N, K) of `rows` (N,) of all views."""
        mask = self._clips.mask.index_select(0, rows)
        x = self._clips.x.index_select(0, rows) if self._reads_x else self._unread(len(rows))
        with self._handed_out(rows):
            return self._head(x, mask)

    @torch.no_grad()
    def _compute(self, part: nn.Module, rows: Tensor, dtype: torch.dtype) -> Tensor:
        return torch.cat([part(self._clips.x[some], self._clips.mask[some]).to(dtype) for some in rows.split(BLOCK)])

    @torch.no_grad()
    def _asks_for_x(self, rows: Tensor, dtype: torch.dtype) -> bool:
        """Whether anything but those parts looks at the features: logits that NaN in their place spoils tell."""
        training = self._head.training
        self._head.eval()
        autocast = torch.autocast(rows.device.type, dtype, enabled=dtype == torch.bfloat16)
        with autocast, self._handed_out(rows):
            spoilt = not self._head(self._unread(len(rows)), self._clips.mask[rows]).isfinite().all()
        self._head.train(training)
        return bool(spoilt)

    def _unread(self, count: int) -> Tensor:
        return self._clips.x.new_full((1, 1, 1), torch.nan).expand(count, *self._clips.x.shape[1:])

    @contextmanager
    def _handed_out(self, rows: Tensor) -> Iterator[None]:
        at = self._at[rows]
        for part, table in self._tables:
            part.given = table.index_select(0, at)
        try:
            yield
        finally:
            for part, _ in self._tables:
                part.given = None
