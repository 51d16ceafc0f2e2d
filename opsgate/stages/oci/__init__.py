"""The OCI registry: references, credentials, questions over HTTP."""
