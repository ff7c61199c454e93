"""Serve: TensorBoard as a process of its own, with the tab also where the package was not installed but only found.

`python -m deadrelu.board.serve --logdir runs` takes the flags of TensorBoard.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from absl import app
from tensorboard import default, main_lib, program
from tensorboard.plugins import base_plugin

from .loader import DeadReluLoader

CHILD = "DEADRELU_BOARD_CHILD"


def main() -> None:
    """Run TensorBoard with the flags of the command line; if CHILD is set, for as long as stdin is open."""
    if os.environ.get(CHILD):
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    main_lib.global_init()
    plugins = default.get_plugins()
    if not any(isinstance(plugin, type) and plugin.__name__ == DeadReluLoader.__name__ for plugin in plugins):
        plugins.append(DeadReluLoader)
    tensorboard = program.TensorBoard(plugins=plugins)
    try:
        app.run(tensorboard.main, flags_parser=tensorboard.configure)
    except base_plugin.FlagsError as error:
        sys.exit(f"error: {error}")


def _end_with_stdin() -> None:
    while os.read(0, 1 << 10):  # not sys.stdin, whose lock would outlive the interpreter
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
