"""`init`: a configuration and a workflow for a repository."""
