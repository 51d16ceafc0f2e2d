"""The user's commands: which to run with what environment (`hook`), and how (`process`)."""
