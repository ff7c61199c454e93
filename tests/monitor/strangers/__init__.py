"""Training scripts as strangers write them: plain loops on a `Set`, nothing in them made for Monitor."""
