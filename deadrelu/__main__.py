"""`python -m deadrelu`."""

from __future__ import annotations

from .cli.app import main

if __name__ == "__main__":  # a worker process started by `spawn` imports this file under another name
    main()
