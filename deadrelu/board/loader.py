"""Loader: what TensorBoard finds through the entry point `tensorboard_plugins`.

An exception while this module is imported, or in `fix_flags`, would stop every TensorBoard of the environment, whatever
it was started for. So it imports no more than it must, and what fails costs the tab alone.
"""

from __future__ import annotations

import logging
from typing import Any

try:
    from tensorboard.plugins.base_plugin import TBLoader as _Loader
except Exception:  # a TensorBoard that keeps it elsewhere
    _Loader = object

PLUGIN = "deadrelu"


class DeadReluLoader(_Loader):  # type: ignore[misc]
    """Loads the tab."""

    def define_flags(self, parser: Any) -> None:
        """Add no flags."""

    def fix_flags(self, flags: Any) -> None:
        """Keep every record of a run, unless the user said how many: TensorBoard samples 10, or 100, by default."""
        try:
            flags.samples_per_plugin.setdefault(PLUGIN, 0)
        except Exception as error:
            logging.getLogger(PLUGIN).warning("the records of a run will be sampled: %r", error)

    def load(self, context: Any) -> Any:
        """Return the plugin, None if it cannot be had."""
        try:
            from .plugin import DeadReluPlugin

            return DeadReluPlugin(context)
        except Exception as error:
            logging.getLogger(PLUGIN).warning("the Dead ReLU tab cannot be shown: %r", error)
            return None
