"""Callbacks that run a Monitor inside of other people's trainers; each is an extra."""
