"""The settings as rows for people: what doctor and `--dry-run` show."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import msgspec

from opsgate.settings.durations import format_duration
from opsgate.settings.values import Notify, Settings, Timeouts
from opsgate.settings.variables import GATE


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A setting as resolved, and where it comes from."""

    key: str
    value: str
    origin: str


def describe(settings: Settings) -> tuple[Row, ...]:
    """The settings, secrets masked; one row for each target and command."""
    scrub = settings.redactor.scrub
    origins = settings.origins
    return tuple(
        Row(key=key, value=scrub(value), origin=origins.get(key, "default")) for key, value in _rows(settings)
    )


def _rows(settings: Settings) -> Iterator[tuple[str, str]]:
    hooks, policy, publish = settings.hooks, settings.policy, settings.publish
    yield "environment", settings.environment + (" (production)" if settings.production else "")
    yield "evidence_dir", str(settings.evidence_dir)
    yield "run_id", settings.run_id or "a new one"
    yield "revision", settings.revision or "what publish or the checkout says"
    for target in settings.targets:
        told = target.url if target.url is not None else target.command or ""
        name = "" if target.name == told else f"{target.name}: "
        yield "urls", f"{name}{told}{'' if target.required else ' (not required)'}"
    if not settings.targets:
        yield "urls", "none: nothing will be validated"
    yield from (("control_urls", target.name) for target in settings.control)
    yield "token", "*** (set)" if settings.token else "none"
    for name in GATE:
        value = getattr(policy, name)
        yield f"gate.{name}", format_duration(value) if isinstance(value, float) else str(value)
    yield "publish.command", hooks.publish or "docker compose"
    if hooks.publish is None:
        yield "publish.compose_files", ", ".join(publish.compose_files) or "docker compose decides"
        yield "publish.services", ", ".join(publish.services) or "every service with a build section"
    yield "deploy", "docker compose up" if hooks.deploy_compose else hooks.deploy or "none"
    chain = ("redeploy",) if hooks.redeploy else hooks.rollback
    yield from (("rollback", command) for command in chain or ("none",))
    yield "rollback_allowed", "true" if settings.rollback else "false"
    yield "rollback_check", hooks.rollback_check or "none"
    yield "incident", hooks.incident or "none"
    # A webhook's path is often its key.
    host = urlsplit(settings.notify.webhook_url or "").netloc.rpartition("@")[2]
    yield "notify.webhook_url", f"{host} ({_signed(settings.notify)})" if host else "none"
    yield "notify.github_issues", "true" if settings.notify.github_issues else "false"
    for name in Timeouts.__struct_fields__:
        yield f"timeouts.{name}", format_duration(getattr(settings.timeouts, name))
    yield "max_rollbacks_per_day", str(settings.max_rollbacks_per_day)
    yield "fail_on_skipped", "true" if settings.fail_on_skipped else "false"
    yield "redact.patterns", str(len(settings.redact_patterns))


def _signed(notify: Notify) -> str:
    return "signed" if notify.webhook_secret else f"not signed: {notify.webhook_secret_env} is not set"
