"""opsgate: prove that a rollout serves, roll it back when it does not, keep the evidence."""

__version__ = "1.0.0"
