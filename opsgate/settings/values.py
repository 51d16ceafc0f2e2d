"""What one command was asked to do, after flags, environment and file have been weighed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from opsgate.redact import Redactor, Secret
from opsgate.verdict.targets import Policy, Target


class Flags(msgspec.Struct, frozen=True, kw_only=True):
    """The flags as typed; None, or an empty tuple, where one was not given."""

    url: tuple[str, ...] = ()
    env: str | None = None
    deadline: str | None = None
    soak: str | None = None
    interval: str | None = None
    attempt_timeout: str | None = None
    successes: str | None = None
    flaps: str | None = None
    revision: str | None = None
    rollback: bool | None = None
    fail_on_skipped: bool = False
    evidence_dir: str | None = None


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """How long each hook may run, in seconds; `rollback` for each command of the chain."""

    publish: float = 1800.0
    deploy: float = 600.0
    rollback: float = 240.0
    rollback_check: float = 30.0
    incident: float = 60.0


class Publish(msgspec.Struct, frozen=True, kw_only=True):
    """What the built-in publish builds. Paths as written, relative to the file's directory."""

    compose_files: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    """Empty: every service with a build section."""


class Hooks(msgspec.Struct, frozen=True, kw_only=True):
    """The commands of the user, for `/bin/sh -c`; None where there is none."""

    publish: str | None = None
    deploy: str | None = None
    deploy_compose: bool = False
    """`deploy = "compose"`: opsgate's own `docker compose up` with the pins."""
    rollback: tuple[str, ...] = ()
    """Tried in order until one succeeds."""
    redeploy: bool = False
    """`rollback = "redeploy"`: the deploy hook with what was last good."""
    rollback_check: str | None = None
    incident: str | None = None

    @property
    def deploys(self) -> bool:
        """Whether opsgate does the deploying."""
        return self.deploy is not None or self.deploy_compose

    @property
    def rolls_back(self) -> bool:
        """Whether a way back is configured."""
        return bool(self.rollback) or self.redeploy


class Notify(msgspec.Struct, frozen=True, kw_only=True):
    """Who else is told of a failure, and of the pass after it. Off unless configured."""

    webhook_url: str | None = None
    webhook_secret: Secret | None = None
    """The key of the webhook's HMAC signature."""
    webhook_secret_env: str = "RUNTIME_WEBHOOK_SECRET"  # noqa: S105 - a name, not a value
    """The variable that the key was looked for in."""
    github_issues: bool = False


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a command may want to know of its configuration. Durations in seconds."""

    config_file: Path | None
    directory: Path
    """The file's directory, else the working directory: hooks run and relative paths start there."""
    environment: str
    production: bool
    evidence_dir: Path
    run_id: str | None
    """The one that was given, or that of the workflow run; None: a new one is due."""
    revision: str | None
    """Of the flag or the variable only."""
    targets: tuple[Target, ...]
    control: tuple[Target, ...]
    policy: Policy
    hooks: Hooks
    timeouts: Timeouts
    publish: Publish
    notify: Notify
    token: Secret | None
    redact_patterns: tuple[str, ...]
    max_rollbacks_per_day: int
    rollback: bool
    """False after `--no-rollback`."""
    fail_on_skipped: bool
    origins: Mapping[str, str]
    """Where each value came from, by dotted key: `flag --soak`, `OPSGATE_SOAK`,
    `opsgate.toml [environments.production.gate]` or `default`."""
    warnings: tuple[str, ...]
    redactor: Redactor
    """Hides the secrets of the configuration and of the environment, and what the file's patterns match."""

    def __repr__(self) -> str:
        return f"<Settings: {self.environment}, {self.config_file or 'no file'}>"
