"""The progress bar of a training run."""

from __future__ import annotations

import time
from types import TracebackType

from rich import progress as rich_progress

SECONDS = 0.5  # between two looks at the loss: on a GPU each look waits for the device


class Progress:
    """Loss, accuracy, images/s and time left; silent unless `shown`."""

    def __init__(self, steps: int, done: int, batch_size: int, *, shown: bool) -> None:
        self._bar = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(),
            rich_progress.TaskProgressColumn(),
            rich_progress.TextColumn("{task.fields[figures]}"),
            rich_progress.TimeRemainingColumn(),
            disable=not shown,
        )
        self._task = self._bar.add_task("training", total=steps, completed=done, figures="")
        self._batch_size, self._looked = batch_size, time.perf_counter()
        self._begin, self._first = self._looked, done

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def due(self) -> bool:
        """Whether it is time to look again."""
        return time.perf_counter() - self._looked > SECONDS

    def show(self, step: int, loss: float, accuracy: float) -> None:
        self._looked = time.perf_counter()
        speed = (step - self._first) * self._batch_size / (self._looked - self._begin)
        figures = f"loss {loss:.3f}  accuracy {accuracy:.1%}  {speed:,.0f} images/s"
        self._bar.update(self._task, completed=step, figures=figures)
