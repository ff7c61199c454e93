"""Ways: which way forward passes take through a model, and which of them are traced to find out."""

from __future__ import annotations

from torch import nn

from .table import Table

_ROWS = 6
"""Rows of forward passes that are traced where a model goes other ways than before, the longest of as many of them.

Not for ever: where blocks are skipped at random, what feeds a residual sum is another site by each way to it."""
_SEARCH, _TRIES, _REST = 16, 512, 64
"""While a way is looked for that was taken and not traced: forward passes to one that is traced, such passes at most,
and passes after which there may be one more."""


class Ways:
    """The tables of the forward passes that were traced.

    Attributes:
        tables: by the outermost module; one that is not there is traced.
        passes: forward passes counted.
    """

    def __init__(self) -> None:
        self.tables: dict[nn.Module, Table] = {}
        self.passes = 0
        self._past: dict[nn.Module, Table] = {}
        self._astrays = self._due = self._until = 0
        self._searched: set[nn.Module] = set()  # those that have gone a way that was not traced
        self._spent = 0  # passes traced in searches

    def of(self, module: nn.Module) -> Table | None:
        """Return the table of a forward pass that begins, None if it is to be traced."""
        if self.passes <= self._until:
            self.tables.pop(module, None)
        elif module in self._searched and self._may_try and drawn(self.passes, _SEARCH):
            self._spent += 1
            self.tables.pop(module, None)
        return self.tables.get(module)

    @property
    def _may_try(self) -> bool:
        return self._spent < _TRIES + self.passes // _REST

    def learn(self, module: nn.Module, table: Table, *, explained: bool) -> None:
        """Take over the table of a forward pass that was traced; explained: what was looked for has run in it."""
        if table.learn_from(self._past.get(module)) or explained:
            self._searched.discard(module)
        self.tables[module] = self._past[module] = table

    def doubt(self, module: nn.Module) -> None:
        """Trace the next forward pass of this module."""
        self.tables.pop(module, None)

    def astray(self) -> None:
        """The model goes other ways than those that were traced: trace some forward passes in a row.

        Ever longer rows, so that of ways that alternate each is met, and ever further apart, for a way may be rare.
        """
        if self._astrays < _ROWS and self.passes >= self._due:
            self._astrays += 1
            self._until = self.passes + self._astrays
            self._due = self.passes + self._astrays**3

    def lost(self, module: nn.Module) -> None:
        """This module has gone a way that was not traced: look for it, however rare it is."""
        self.astray()
        if self._may_try and module in self.tables:
            self._searched.add(module)
            self._spent += 1
            self.doubt(module)

    def forget(self) -> None:
        """The model has other modules than before: nothing that was found holds."""
        self.tables.clear()
        self._past.clear()
        self._searched.clear()


def drawn(number: int, share: int) -> bool:
    """Return whether this number is the one in `share` that is drawn: evenly, and in step with no rhythm."""
    return (number * 0x9E3779B1 & 0xFFFFFFFF) * share < 2**32
