"""`doctor`: what a release would find, before it."""
