"""Decoded places kept in memory up to a number of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Value = TypeVar("Value")


class ByteCache(Generic[Value]):
    """The most recently used values; pickles empty.

    Args:
        limit: Bytes to keep. The latest value is kept even if it is larger.
        size: Bytes of a value.
    """

    def __init__(self, limit: int, size: Callable[[Value], int]) -> None:
        self._limit, self._size = limit, size
        self._start()

    def _start(self) -> None:
        self._kept: OrderedDict[int, Value] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._loading: dict[int, threading.Lock] = {}

    def __getstate__(self) -> tuple[int, Callable[[Value], int]]:
        return self._limit, self._size

    def __setstate__(self, state: tuple[int, Callable[[Value], int]]) -> None:
        self._limit, self._size = state
        self._start()

    def get(self, key: int, load: Callable[[int], Value]) -> Value:
        """Return the value of a key; one thread loads it, others wait for that thread."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            loading = self._loading.setdefault(key, threading.Lock())
        with loading:
            with self._lock:
                if key in self._kept:
                    return self._kept[key]
            value = load(key)
            with self._lock:
                self._keep(key, value)
                self._loading.pop(key, None)
        return value

    def _keep(self, key: int, value: Value) -> None:
        self._kept[key] = value
        self._bytes += self._size(value)
        while self._bytes > self._limit and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= self._size(dropped)
