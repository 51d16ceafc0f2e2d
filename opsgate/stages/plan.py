"""`--dry-run`: what would be done, in order, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec

from opsgate.evidence.record import pretty
from opsgate.evidence.views.headline import NOT_VALIDATED
from opsgate.settings import Settings, describe
from opsgate.stages import publish
from opsgate.stages.docker import compose
from opsgate.stages.rollback import Route

_IMAGE: Final = re.compile(r"""^\s+image:\s*["']?([^\s"'#]+)""", re.MULTILINE)


def render(settings: Settings, *, skip: frozenset[str], as_json: bool) -> str:
    """The plan of a release."""
    hooks = settings.hooks
    images: list[str] = []
    order = [_step("preflight", hooks.rollback_check, "the way back; what each target answers now")]
    if publish.configured(settings) and "publish" not in skip:
        how = "by the hook" if hooks.publish else "docker compose build and push"
        order.append(_step("publish", hooks.publish, f"{how}; digests, pins"))
        images = _images(settings)
    if hooks.deploys and "deploy" not in skip:
        order.append(_step("deploy", _deploying(settings), "with the pins of the run"))
    order.append(_step("gate", None, _gate(settings)))
    if hooks.rolls_back and settings.rollback:
        commands = hooks.rollback or (_deploying(settings),)
        what = "when the gate or the deploy failed, then probe again"
        order += [_step("rollback", command, what) for command in commands]
    return _plan(settings, order, as_json=as_json, images=images)


def render_rollback(settings: Settings, route: Route, *, verify: bool, as_json: bool) -> str:
    """The plan of a manual rollback."""
    hooks = settings.hooks
    if hooks.redeploy and route.to is None:
        why = "no earlier run is known to be good (no_last_good): choose a release by hand"
        return _plan(settings, [_step("rollback", None, f"nothing is started: {why}")], as_json=as_json)
    leads = f"to {route.to.revision or route.to.run_id}" if route.to else "to where the command leads"
    commands = hooks.rollback or (_deploying(settings),)
    order = [_step("rollback", command, leads) for command in commands]
    if verify:
        order.append(_step("recovery", None, _gate(settings)))
    return _plan(settings, order, as_json=as_json)


def _deploying(settings: Settings) -> str:
    return settings.hooks.deploy or compose.up(settings, None)


def _step(stage: str, command: str | None, what: str) -> dict[str, str | None]:
    return {"stage": stage, "command": command, "what": what}


def _gate(settings: Settings) -> str:
    required = [target.name for target in settings.targets if target.required]
    return f"probe {', '.join(required)}" if required else f"skipped: {NOT_VALIDATED}, no URL is configured"


def _images(settings: Settings) -> list[str]:
    """The images as the compose files name them: a plan asks no program, so variables stay as written."""
    if settings.hooks.publish:
        return ["those that the publish hook names when it has run"]
    found = []
    for name in settings.publish.compose_files:
        with suppress(OSError, UnicodeDecodeError):
            found += _IMAGE.findall((settings.directory / name).read_text(encoding="utf-8"))
    return list(dict.fromkeys(found))


def _plan(
    settings: Settings, order: list[dict[str, str | None]], *, as_json: bool, images: Sequence[str] = ()
) -> str:
    scrub = settings.redactor.scrub_value
    rows = describe(settings)
    if as_json:
        document: dict[str, Any] = {
            "environment": settings.environment,
            "configuration": msgspec.to_builtins(rows),
            "images": list(images),
            "order": order,
            "warnings": list(settings.warnings),
        }
        return pretty(scrub(document)).decode()
    lines = [f"Plan for {settings.environment} (nothing is run)", "", "Configuration"]
    width = max(len(row.key) for row in rows)
    lines += [f"  {row.key:<{width}}  {row.value}  ({row.origin})" for row in rows]
    if settings.warnings:
        lines += ["", "Warnings", *(f"  {warning}" for warning in settings.warnings)]
    if images:
        lines += ["", "Images", *(f"  {image}" for image in images)]
    lines += ["", "Order"]
    for number, step in enumerate(order, 1):
        lines.append(f"  {number}. {step['stage']}: {step['what']}")
        if step["command"]:
            lines.append(f"     $ {step['command']}")
    return str(settings.redactor.scrub("\n".join(lines))) + "\n"
