"""One attempt, and the loop of attempts."""
