"""Weighs flags, variables and file into one `Settings`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from opsgate.redact import Redactor, Secret, found_in
from opsgate.settings import file as configfile
from opsgate.settings import rules, selection, urls, variables
from opsgate.settings.durations import format_duration
from opsgate.settings.mistakes import Mistake, Problem
from opsgate.settings.sources import Sources
from opsgate.settings.values import Flags, Hooks, Notify, Publish, Settings, Timeouts
from opsgate.verdict.targets import Policy, Target

ROLLBACK_NEEDS: Final = frozenset({"rollback"})
"""For `load(needs=…)`: a rollback takes every mistake outside its own commands as a warning."""
EVIDENCE_NEEDS: Final = frozenset({"evidence_dir"})
"""For `load(needs=…)`: looking at evidence."""
EVIDENCE_DIR: Final = "artifacts/rollout"
MAX_ROLLBACKS_PER_DAY: Final = 3


def load(
    flags: Flags, environ: Mapping[str, str], cwd: Path, *, needs: frozenset[str] | None = None
) -> Settings:
    """The settings of one command. Reads the configuration file and nothing else; `cwd` is absolute.

    Raises `ConfigurationError` naming each mistake and its place. With `needs`, the keys that the
    command cannot do without, mistakes in flags, in the choice of the environment and in these keys
    are errors; any other is a warning, and what stands behind it counts: the next source, the default.
    """
    sources = Sources(flags, environ, cwd, needs)
    hooks = _hooks(sources)
    targets, control, token = selection.targets(sources), selection.control(sources), _token(sources)
    notify = _notify(sources)
    patterns = _patterns(sources)
    evidence_dir, run_id = _evidence_dir(sources, hooks), _run_id(sources)
    values = _plain_values(sources)
    sources.stop_on_errors()
    secrets = (*_secrets(targets, control, token, hooks), *_notify_secrets(notify))
    redactor = Redactor.gather(environ, secrets, patterns)
    return Settings(
        config_file=sources.file.path if sources.file else None,
        directory=sources.directory,
        environment=sources.environment,
        evidence_dir=sources.directory / evidence_dir,
        run_id=run_id,
        targets=selection.named(targets, redactor),
        control=selection.named(control, redactor),
        hooks=hooks,
        notify=notify,
        token=token,
        redact_patterns=patterns,
        origins=sources.origins,
        warnings=tuple(dict.fromkeys(sources.warnings)),
        redactor=redactor,
        **values,
    )


def _plain_values(sources: Sources) -> dict[str, Any]:
    """The fields that depend on no other."""
    pick, listed = sources.pick, sources.listed
    timeouts = Timeouts()
    rollback = pick("rollback_allowed", True, rules.truth, variable="OPSGATE_ROLLBACK")
    skipped = pick("fail_on_skipped", False, rules.truth, variable="OPSGATE_FAIL_ON_SKIPPED")
    if sources.flags.rollback is not None:
        rollback = sources.flags.rollback
        sources.origins["rollback_allowed"] = f"flag --{'' if rollback else 'no-'}rollback"
    if sources.flags.fail_on_skipped:
        skipped = True
        sources.origins["fail_on_skipped"] = "flag --fail-on-skipped"
    return {
        "policy": _policy(sources),
        "timeouts": Timeouts(
            **{
                name: listed(f"timeouts.{name}", getattr(timeouts, name))
                for name in Timeouts.__struct_fields__
            }
        ),
        "publish": Publish(
            compose_files=listed("publish.compose_files", ()), services=listed("publish.services", ())
        ),
        "production": listed("production", False),
        "max_rollbacks_per_day": listed("max_rollbacks_per_day", MAX_ROLLBACKS_PER_DAY),
        "revision": pick(
            "revision", None, rules.revision, flag=sources.flags.revision, variable="OPSGATE_REVISION"
        ),
        "rollback": rollback,
        "fail_on_skipped": skipped,
    }


def _token(sources: Sources) -> Secret | None:
    name = "RUNTIME_HEALTH_TOKEN"
    text = sources.variable(name)
    sources.origins["token"] = name if text else "default"
    if text is None:
        return None
    token: Secret | None = sources.judge("token", name, _checked_token, text)
    return token


def _checked_token(text: str) -> Secret:
    if not all("!" <= char <= "~" for char in text):
        hint = "A bearer token is one line of ASCII without spaces; give it without the word Bearer."
        raise Mistake("holds a character that a header cannot carry", hint)
    return Secret(text)


def _secrets(
    targets: tuple[Target, ...], control: tuple[Target, ...], token: Secret | None, hooks: Hooks
) -> tuple[Secret, ...]:
    """What the configuration carries that no output may show."""
    found = [token.reveal()] if token else []
    for command in (hooks.publish, hooks.deploy, *hooks.rollback, hooks.rollback_check, hooks.incident):
        found += found_in(command or "")
    for target in (*targets, *control):
        found += found_in(target.url or target.command or "")
        for _, value in target.request_headers:
            # `Authorization: Basic …`: the part behind the scheme is the secret by itself as well.
            found += [value, value.partition(" ")[2].strip()]
    return tuple(Secret(value) for value in dict.fromkeys(found) if value)


def _policy(sources: Sources) -> Policy:
    default, shape = Policy(), configfile.SHARED["gate"]
    picked = {
        name: sources.pick(
            f"gate.{name}",
            getattr(default, name),
            rules.of_text(shape[name]),
            flag=getattr(sources.flags, name),
            variable=f"OPSGATE_{name.upper()}",
        )
        for name in variables.GATE
    }
    if None in picked.values():
        return default
    policy = Policy(**picked)
    if policy.soak >= policy.deadline:
        by_flag = any(sources.origins[f"gate.{name}"].startswith("flag ") for name in ("soak", "deadline"))
        sources.report(_too_long_a_soak(sources, policy), fatal=by_flag)
        return msgspec.structs.replace(policy, soak=default.soak, deadline=default.deadline)
    if (policy.successes - 1) * policy.interval >= policy.deadline:
        sources.warnings.append(
            f"gate: cannot pass: {policy.successes} successes {format_duration(policy.interval)} apart "
            f"take longer than the deadline, {format_duration(policy.deadline)}"
        )
    return policy


def _too_long_a_soak(sources: Sources, policy: Policy) -> Problem:
    # Who gave the deadline only has not thought of the soak: the message starts at what was given.
    key = "gate.deadline" if sources.origins["gate.soak"] == "default" else "gate.soak"
    soak, deadline = (
        f"{format_duration(getattr(policy, name))} ({sources.origins[f'gate.{name}']})"
        for name in ("soak", "deadline")
    )
    return Problem(
        where=sources.where(key),
        text=f"the soak, {soak}, must be shorter than the deadline, {deadline}",
        hint="Give a longer deadline or a shorter soak.",
    )


def _hooks(sources: Sources) -> Hooks:
    picked: dict[str, Any] = {
        name: sources.pick(
            "publish.command" if name == "publish" else name, None, rules.command, variable=variable
        )
        for name, variable in variables.HOOKS.items()
    }
    rollback, deploy = picked.pop("rollback"), picked.pop("deploy")
    # Only the file can mean opsgate's own ways: in a variable these words are commands.
    redeploy = rollback == rules.REDEPLOY and sources.origins["rollback"] != variables.HOOKS["rollback"]
    compose = deploy == rules.COMPOSE and sources.origins["deploy"] != variables.HOOKS["deploy"]
    chain = (rollback,) if isinstance(rollback, str) else (rollback or ())
    hooks = Hooks(
        **picked,
        deploy=None if compose else deploy,
        deploy_compose=compose,
        rollback=() if redeploy else chain,
        redeploy=redeploy,
    )
    if redeploy and not hooks.deploys:
        text = f'"{rules.REDEPLOY}" runs the deploy hook, and none is configured'
        hint = "Set deploy beside it, or RUNTIME_DEPLOY_COMMAND."
        problem = Problem(where=sources.where("rollback"), text=text, hint=hint)
        sources.report(problem, fatal=sources.is_needed("rollback"))
    return hooks


def _notify(sources: Sources) -> Notify:
    default = Notify()
    url = sources.pick("notify.webhook_url", None, urls.check_webhook, variable=variables.WEBHOOK_URL)
    name = sources.listed("notify.webhook_secret_env", default.webhook_secret_env)
    key = sources.variable(name)
    if url and not key and name != default.webhook_secret_env:
        sources.warnings.append(f"{sources.where('notify.webhook_secret_env')}: {name} is not set")
    return Notify(
        webhook_url=url,
        webhook_secret=Secret(key) if key else None,
        webhook_secret_env=name,
        github_issues=sources.listed("notify.github_issues", default.github_issues),
    )


def _notify_secrets(notify: Notify) -> list[Secret]:
    url = [Secret(notify.webhook_url)] if notify.webhook_url else []
    return url + ([notify.webhook_secret] if notify.webhook_secret else [])


def _evidence_dir(sources: Sources, hooks: Hooks) -> str:
    if hooks.redeploy and sources.needs and "rollback" in sources.needs:
        # What was last good stands in the evidence: elsewhere there would be nothing to go back to.
        sources.needs |= {"evidence_dir"}
    found = sources.pick(
        "evidence_dir",
        EVIDENCE_DIR,
        rules.line,
        flag=sources.flags.evidence_dir,
        variable="OPSGATE_EVIDENCE_DIR",
    )
    return found or EVIDENCE_DIR


def _run_id(sources: Sources) -> str | None:
    given: str | None = sources.pick("run_id", None, rules.run_id, variable="OPSGATE_RUN_ID")
    if given is None:
        given = variables.workflow_run_id(sources.environ, sources.environment)
        sources.origins["run_id"] = "GITHUB_RUN_ID" if given else "default"
    return given


def _patterns(sources: Sources) -> tuple[str, ...]:
    """The patterns of the top level and of the environment add up."""
    key = "redact.patterns"
    found = [(section, section.values[key]) for section in sources.sections if key in section.values]
    sources.origins[key] = ", ".join(sources.origin(section, key) for section, _ in found) or "default"
    return tuple(dict.fromkeys(pattern for _, patterns in found for pattern in patterns))
