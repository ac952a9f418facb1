"""Sequences whose items are only made when they are asked for, since there may be more than memory holds."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeVar, overload

Item = TypeVar("Item", covariant=True)


class MadeSequence(Sequence[Item]):
    """A sequence by two things: its length, and :meth:`make`."""

    @abstractmethod
    def make(self, number: int) -> Item:
        """Item ``number``, from 0 to below the length."""

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...

    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        if isinstance(index, slice):
            return [self.make(number) for number in range(*index.indices(len(self)))]
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(index)
        return self.make(number)
