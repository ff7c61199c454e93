"""The Monitor against its ground truth: dates, causes, and training left untouched."""
