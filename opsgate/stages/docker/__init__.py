"""Docker compose and its images: built, pushed, pinned, looked at."""
