"""The record of a run: written into TensorBoard event files, window by window, and read back from them."""
