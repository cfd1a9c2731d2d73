"""What is the same for everybody until a ranking changes: made once for each revision."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Cache(Generic[T]):
    """The `size` values used last, one version of each. One thread makes a value while others that want it wait."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._values: OrderedDict[Hashable, tuple[Hashable, T]] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, version: Hashable, make: Callable[[], T]) -> T:
        """The value of a key at a version. What `make` raises is raised, and nothing is kept."""
        with self._lock:
            if (found := self._find(key, version)) is not None:
                return found[1]
            making = self._making.setdefault((key, version), threading.Lock())
        with making:
            with self._lock:
                if (found := self._find(key, version)) is not None:
                    return found[1]
            try:
                value = make()
            finally:
                with self._lock:
                    self._making.pop((key, version), None)
            with self._lock:
                self._values[key] = (version, value)
                self._values.move_to_end(key)
                while len(self._values) > self.size:
                    self._values.popitem(last=False)
            return value

    def _find(self, key: Hashable, version: Hashable) -> tuple[Hashable, T] | None:
        found = self._values.get(key)
        if found is None or found[0] != version:
            return None
        self._values.move_to_end(key)
        return found
