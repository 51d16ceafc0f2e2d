"""Deploy: the user's hook with the pins of the run. Its exit code says little; the gate says the rest."""

from __future__ import annotations

from opsgate.errors import ConfigurationError, OpsgateError
from opsgate.settings import Settings
from opsgate.stages.publish import published_images, take_revision
from opsgate.stages.session import Session


def require(settings: Settings) -> None:
    """Raise `ConfigurationError` where nothing says how to deploy."""
    if not settings.hooks.deploys:
        raise ConfigurationError(
            f"environment {settings.environment} has no deploy hook",
            "set deploy in opsgate.toml, or RUNTIME_DEPLOY_COMMAND",
        )


def run(session: Session) -> bool:
    """Deploy; whether the hook succeeded. Until the gate has passed, the run is not validated."""
    record, settings = session.record, session.settings
    with session.stage("deploy", record.stages.deploy) as stage:
        done, outputs = session.run_hook(
            "deploy", settings.hooks.deploy or "", limit=settings.timeouts.deploy
        )
        stage.commands = [done]
        session.halt.check()
        try:
            take_revision(session, outputs)
            record.images = published_images(session, outputs) or record.images
            failure = f"the deploy hook failed: {done.explanation}" if done.explanation else ""
        except OpsgateError as error:
            failure = str(error)
        stage.status = "failed" if failure else "passed"
        if failure:
            stage.detail = failure
    if failure:
        record.status, record.status_reason = "failed", "deploy_failed"
        return False
    record.status, record.status_reason = "skipped", "not_gated"
    return True
