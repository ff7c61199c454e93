"""The callbacks of other trainers against a plain loop of the same model, seed and data."""
