"""The optimizer state of trainings whose last gradient per unit is known."""
