"""Screens: what a report looks like. They draw what the report holds and compute nothing."""
