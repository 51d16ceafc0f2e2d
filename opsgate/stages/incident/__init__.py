"""Whoever is told of a run that failed, and of the one after it that passed."""
