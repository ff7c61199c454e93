"""Checks of what deadrelu does on a GPU: on a real one where there is one, and on an emulated one."""
