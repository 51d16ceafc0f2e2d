"""Builds the corpus in `tests/data`: records of every status, reason and outcome, and their views.

Gates are not made up but played: scripted targets under a virtual clock until the judge has a verdict.
`python -m tests.records` writes the files anew; a test proves that they are current.
"""

from __future__ import annotations

import hashlib
import math
import random
import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import msgspec

from opsgate.evidence.record import (
    Ci,
    Command,
    Container,
    Deploy,
    Evidence,
    Gate,
    Image,
    Preflight,
    Publish,
    Rollback,
    Rollout,
    Stages,
    TargetResult,
    Withheld,
    encode,
)
from opsgate.evidence.views import FORMATS
from opsgate.redact import Redactor
from opsgate.verdict.judge import Failed, Passed, Tally, Waiting, decide
from opsgate.verdict.targets import Attempt, Policy

DIRECTORY = Path(__file__).parent / "data" / "records"
POLICY = Policy(deadline=12, soak=3, interval=0.5, attempt_timeout=2)
START = datetime(2026, 11, 24, 14, 1, 5, tzinfo=UTC)
NEW, OLD = "v42", "v41"
PINS = "/srv/app/artifacts/rollout/20261123T091500Z-a1b2c3/pins.yaml"
FIELDS = {
    "refused": {"kind": "refused", "detail": "connection refused by 192.0.2.10", "remote_ip": "192.0.2.10"},
    "503": {"kind": "status", "status_code": 503, "detail": "status 503", "bytes": 212},
    "timeout": {"kind": "timeout", "detail": "time limit of 2 s reached while waiting for the answer"},
    "dns": {"kind": "dns", "detail": "cannot look up app.example.com: Name or service not known"},
    "exit": {"kind": "exit", "detail": "exit 7: curl: (7) Failed to connect to localhost port 8000"},
    "old": {
        "kind": "revision",
        "status_code": 200,
        "detail": "reports v41, expected v42",
        "revision": OLD,
        "bytes": 180,
    },
}
Script = Callable[[float], str]
"""Milliseconds since the gate began → `ok`, or a key of `FIELDS`."""


def healthy(_: float) -> str:
    return "ok"


def always(outcome: str) -> Script:
    return lambda _: outcome


def after(ms: float, then: str = "ok", before: str = "refused") -> Script:
    return lambda at: then if at >= ms else before


def flapping(at: float) -> str:
    return "503" if at % 4000 > 3000 else "ok"


def time(when: datetime) -> str:
    return f"{when:%Y-%m-%dT%H:%M:%S}.{when.microsecond // 1000:03d}Z"


class Play(msgspec.Struct, kw_only=True):
    """A target and what it does."""

    name: str
    url: str | None = None
    script: Script = healthy
    required: bool = True
    revision: str | None = None


def played(
    plays: Sequence[Play], when: datetime, *, control: Sequence[Play] = (), revision: str | None = None
) -> Gate:
    """A gate over `plays`, decided as the real one decides, attempt by attempt."""
    rng = random.Random(7)
    everyone = [*plays, *control]
    tries: list[list[Attempt]] = [[] for _ in everyone]
    tallies = [Tally() for _ in everyone]
    due = [float(i) for i in range(len(everyone))]
    must = [i for i, play in enumerate(plays) if play.required]
    watchers = list(range(len(plays), len(everyone)))
    while True:
        who = min(range(len(due)), key=due.__getitem__)
        attempt = _attempt(everyone[who], due[who], rng)
        tries[who].append(attempt)
        tallies[who] = tallies[who].after(attempt, POLICY)
        gap = POLICY.interval * 1000 if attempt.ok else min(100 * 2 ** len(tries[who]), 500)
        due[who] = max(attempt.at_ms + gap, attempt.end_ms)
        verdict = decide(
            [tallies[i] for i in must], POLICY, now_ms=min(due), control=[tallies[i] for i in watchers]
        )
        if isinstance(verdict, Waiting):
            if verdict.probe_at_ms is not None:
                due = [
                    verdict.probe_at_ms if tally.last_ms < verdict.probe_at_ms < at else at
                    for at, tally in zip(due, tallies, strict=True)
                ]
            continue
        break
    results = [_result(*one) for one in zip(everyone, tries, tallies, strict=True)]
    end = max(attempt.end_ms for each in tries for attempt in each)
    return Gate(
        status="passed" if isinstance(verdict, Passed) else "failed",
        started_at=time(when),
        duration_ms=round(end),
        status_reason=verdict.reason if isinstance(verdict, Failed) else "all_probes_healthy",
        policy=POLICY,
        revision=revision,
        targets=results[: len(plays)],
        control=results[len(plays) :],
    )


def ungated(when: datetime) -> Gate:
    """A gate for which no URL is configured."""
    return Gate(
        status="skipped",
        started_at=time(when),
        duration_ms=1,
        status_reason="no_urls_configured",
        policy=POLICY,
        targets=[],
    )


def _attempt(play: Play, at: float, rng: random.Random) -> Attempt:
    outcome = play.script(at)
    elapsed = 2000.0 if outcome == "timeout" else round(8 + 6 * rng.random() + 40 * (rng.random() > 0.9), 1)
    if outcome != "ok":
        return Attempt(at_ms=math.ceil(at), elapsed_ms=elapsed, ok=False, **FIELDS[outcome])  # type: ignore[arg-type]
    if play.url is None:
        return Attempt(at_ms=math.ceil(at), elapsed_ms=elapsed, ok=True, detail="ready")
    return Attempt(
        at_ms=math.ceil(at),
        elapsed_ms=elapsed,
        ok=True,
        status_code=200,
        detail="status 200",
        remote_ip="192.0.2.10",
        bytes=184,
        revision=play.revision,
        tls_not_after="2027-02-01T00:00:00Z" if play.url.startswith("https") else None,
    )


def _result(play: Play, tries: list[Attempt], tally: Tally) -> TargetResult:
    return TargetResult(
        name=play.name,
        url=play.url,
        required=play.required,
        healthy=tally.is_healthy(POLICY),
        first_healthy_ms=tally.first_healthy_ms,
        flaps=tally.flaps,
        attempts=tries,
    )


def plays(backend: Script = healthy, revision: str = NEW) -> list[Play]:
    """The runtime of the corpus: three required targets that die together, and one that only reports."""
    dead = backend(0) == backend(9000) == "refused"
    return [
        Play(name="backend", url="https://app.example.com/healthz", script=backend, revision=revision),
        Play(name="frontend", url="https://app.example.com/", script=always("503" if dead else "ok")),
        Play(name="inside", script=always("exit" if dead else "ok")),
        Play(
            name="metrics",
            url="http://metrics.example.com:9090/-/ready",
            script=always("timeout"),
            required=False,
        ),
    ]


def baseline(*, down: bool = False) -> Preflight:
    """Preflight's single look at each target."""
    rng = random.Random(3)
    results = []
    for play in plays(always("refused" if down else "ok"), OLD):
        attempt = _attempt(play, 0.0, rng)
        tally = Tally().after(attempt, POLICY)
        results.append(_result(play, [attempt], tally))
    check = Command(command="ssh prod true", exit_code=0, duration_ms=310, timed_out=False, output_tail="")
    return Preflight(
        status="passed", started_at=time(START), duration_ms=2100, targets=results, rollback_check=check
    )


def images() -> list[Image]:
    digest = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("backend", "frontend")}
    return [
        Image(
            name=name,
            reference=f"registry.example.com/mission/{name}:3f2a91bc04de-20261124T140107Z",
            digest=f"sha256:{digest[name]}",
        )
        for name in digest
    ]


def ran(command: str, output: str = "", exit_code: int | None = 0, ms: int = 4200, **more: object) -> Command:
    explanation = str(more.pop("explanation", "" if exit_code == 0 else f"exit {exit_code}"))
    return Command(
        command=command,
        exit_code=exit_code,
        duration_ms=ms,
        timed_out=bool(more.pop("timed_out", False)),
        output_tail=output,
        explanation=explanation,
    )


def publish(when: datetime) -> Publish:
    return Publish(
        status="passed",
        started_at=time(when),
        duration_ms=12300,
        commands=[
            ran("docker compose build && docker compose push", "backend pushed\nfrontend pushed\n", ms=12100)
        ],
        tag="3f2a91bc04de-20261124T140107Z",
    )


def deploy(when: datetime) -> Deploy:
    command = 'ssh prod deploy < "$OPSGATE_PINS"'
    output = "Container backend  Recreated\nContainer frontend  Recreated\nContainer backend  Started\n"
    return Deploy(status="passed", started_at=time(when), duration_ms=4300, commands=[ran(command, output)])


def last_good() -> Rollout:
    return Rollout(
        run_id="20261123T091500Z-a1b2c3",
        revision=OLD,
        images=tuple(images()[:1]),
        finished_at="2026-11-23T09:16:10.000Z",
        tag="77aa91bc04de-20261123T091500Z",
        pins=PINS,
    )


def rolled_back(
    when: datetime,
    *,
    ok: bool = True,
    recovery: Gate | None = None,
    trigger: str = "auto",
    reason: str | None = None,
) -> Rollback:
    """A rollback that ran; `recovery` as it was probed, None when it was not."""
    first = ran("ssh prod rollback", "ssh: connect to host prod port 22: Connection timed out\n", 255, 21000)
    second = ran(
        "ssh -J backdoor prod rollback", "backend is v41 again\n" if ok else "no such image\n", 0 if ok else 1
    )
    took = 25400 + (recovery.duration_ms or 0 if recovery else 0)
    good = ok and recovery is not None and recovery.status == "passed"
    rollback = Rollback(
        status="passed" if good else "failed",
        started_at=time(when),
        duration_ms=took,
        attempted=True,
        withheld=None,
        trigger="manual" if trigger == "manual" else "auto",
        reason=reason,
        succeeded=ok,
        recovered=None if recovery is None else recovery.status == "passed",
        exit_code=0 if ok else 1,
        commands=[first, second],
        last_good=last_good(),
    )
    if recovery is not None:
        rollback.recovery = recovery
    return rollback


def withheld(reason: Withheld | None, trigger: Literal["manual"] | None = None) -> Rollback:
    return Rollback(
        attempted=False, withheld=reason, trigger=trigger, reason=None, succeeded=None,
        recovered=None, exit_code=None, commands=[],
    )  # fmt: skip


STEPS = [
    "The last good release is v41 of run 20261123T091500Z-a1b2c3:",
    f"  backend registry.example.com/mission/backend@sha256:{hashlib.sha256(b'backend').hexdigest()}",
    "On the host, without the control plane:",
    f"  docker compose -f compose.yaml -f {PINS} up -d --no-build",
    "Then look again: opsgate gate --env production --revision v41",
]


def record(stages: Stages, status: str, reason: str, exit_code: int | None, **more: object) -> Evidence:
    """A finished release of v42 to production, unless `more` says otherwise."""
    ended = START
    for stage in (stages.preflight, stages.publish, stages.deploy, stages.gate, stages.rollback):
        if stage.started_at and stage.duration_ms is not msgspec.UNSET:
            ended = datetime.fromisoformat(stage.started_at) + timedelta(milliseconds=stage.duration_ms)
    ended += timedelta(milliseconds=40)
    gated = stages.gate.targets or []
    fields: dict[str, object] = {
        "opsgate_version": "1.0.0",
        "run_id": "gh-4711-1-production",
        "environment": "production",
        "trigger": "release",
        "started_at": time(START),
        "finished_at": time(ended),
        "duration_ms": round((ended - START).total_seconds() * 1000),
        "status": status,
        "status_reason": reason,
        "exit_code": exit_code,
        "revision": NEW,
        "images": images(),
        "failed_urls": [one.url or one.name for one in gated if one.required and not one.healthy],
        "attempt_count": sum(len(one.attempts) for one in gated),
        "ci": Ci(
            provider="github", repository="example/mission", workflow="publish",
            commit="3f2a91bc04de" + "0" * 28,
            run_url="https://github.com/example/mission/actions/runs/4711", actor="octocat",
        ),
        "stages": stages,
        "previous": hashlib.sha256(b"previous").hexdigest(),
    }  # fmt: skip
    return msgspec.convert({**msgspec.to_builtins(fields), **msgspec.to_builtins(more)}, Evidence)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def released(backend: Script, *, down: bool = False, revision: str = NEW, **gate: object) -> Stages:
    """The stages of a release up to its gate."""
    return Stages(
        preflight=baseline(down=down),
        publish=publish(at(2.2)),
        deploy=deploy(at(14.6)),
        gate=played(plays(backend, revision), at(19), revision=NEW, **gate),  # type: ignore[arg-type]
    )


def with_rollback(stages: Stages, rollback: Callable[[datetime], Rollback]) -> Stages:
    """The stages with a rollback that began right after the gate."""
    begun = datetime.fromisoformat(str(stages.gate.started_at or stages.deploy.started_at))
    took = stages.gate.duration_ms or stages.deploy.duration_ms or 0
    stages.rollback = rollback(begun + timedelta(milliseconds=took + 50))
    return stages


def recovering(backend: Script) -> Callable[[datetime], Rollback]:
    def rollback(when: datetime) -> Rollback:
        recovery = played(plays(backend, OLD), when + timedelta(seconds=25.4))
        return rolled_back(when, recovery=recovery)

    return rollback


def by_hand(rollback: Rollback, status: str, reason: str, exit_code: int, **more: object) -> Evidence:
    stages = Stages(rollback=rollback)
    return record(stages, status, reason, exit_code, trigger="rollback", images=[], **more)


def corpus() -> dict[str, Evidence]:
    """Every record by the name of its file."""
    dead, late = always("refused"), after(1000, "refused", "ok")
    lost = after(2200, "503", "ok")
    down = "probe_failures"
    wrong = released(always("old"), revision=OLD)
    offline = Stages(
        preflight=baseline(),
        publish=publish(at(2.2)),
        deploy=deploy(at(14.6)),
        gate=played(
            [Play(name="backend", url="https://app.example.com/healthz", script=always("dns"))],
            at(19),
            control=[
                Play(
                    name="https://registry.example.com/v2/",
                    url="https://registry.example.com/v2/",
                    script=always("dns"),
                )
            ],
        ),
        rollback=withheld("observer_offline"),
    )
    failing = record(
        with_rollback(released(dead), lambda when: rolled_back(when, ok=False)),
        "failed",
        down,
        3,
        next_steps=STEPS,
    )
    return {
        "passed": record(released(after(1500)), "passed", "all_probes_healthy", 0),
        "passed-gate-only": record(
            Stages(gate=played(plays(), START)), "passed", "all_probes_healthy", 0,
            trigger="gate", images=[], revision=None,
        ),
        "skipped-no-urls": record(
            Stages(gate=ungated(START)), "skipped", "no_urls_configured", 0, trigger="gate", images=[],
        ),
        "skipped-no-urls-released": record(
            Stages(preflight=Preflight(status="passed", started_at=time(START), duration_ms=20, targets=[]),
                   publish=publish(at(2.2)), deploy=deploy(at(14.6)),
                   gate=ungated(at(19))),
            "skipped", "no_urls_configured", 0,
        ),
        "skipped-not-gated-publish": record(
            Stages(publish=publish(at(1))), "skipped", "not_gated", 0, trigger="publish"
        ),
        "skipped-not-gated-deploy": record(
            Stages(preflight=baseline(), deploy=deploy(at(3))), "skipped", "not_gated", 0, trigger="deploy"
        ),
        "failed-recovered": record(
            with_rollback(released(lost), recovering(after(1200))), "failed", down, 1
        ),
        "failed-down-before-recovered": record(
            with_rollback(released(dead, down=True), recovering(after(1200))), "failed", down, 1
        ),
        "failed-no-rollback-configured": record(
            with_rollback(released(dead), lambda _: withheld(None)), "failed", down, 1
        ),
        "failed-no-rollback-flag": record(
            with_rollback(released(late), lambda _: withheld("no_rollback")), "failed", down, 1
        ),
        "failed-no-last-good": record(
            with_rollback(released(dead), lambda _: withheld("no_last_good")), "failed", down, 3,
            next_steps=STEPS,
        ),
        "failed-circuit-open": record(
            with_rollback(released(dead), lambda _: withheld("circuit_open")), "failed", down, 3,
            next_steps=STEPS,
        ),
        "failed-rollback-failed": failing,
        "failed-not-recovered": record(
            with_rollback(released(dead), recovering(always("503"))), "failed", down, 3, next_steps=STEPS
        ),
        "failed-recovery-unknown": record(
            with_rollback(released(dead), rolled_back), "failed", down, 130, next_steps=STEPS
        ),
        "failed-unstable": record(
            with_rollback(released(flapping), recovering(always("ok"))), "failed", "unstable", 1
        ),
        "failed-wrong-revision": record(
            with_rollback(wrong, lambda _: withheld(None)), "failed", "wrong_revision", 1
        ),
        "failed-observer-offline": record(offline, "failed", "observer_offline", 3, next_steps=STEPS),
        "failed-publish": record(
            Stages(preflight=baseline(), publish=Publish(
                status="failed", started_at=time(at(2.2)), duration_ms=9000,
                detail="docker compose push: denied: requested access to the resource is denied",
                commands=[ran("docker compose push", "denied: requested access to the resource is denied\n",
                              1)])),
            "failed", "publish_failed", 1, images=[],
        ),
        "failed-deploy-recovered": record(
            with_rollback(Stages(preflight=baseline(), publish=publish(at(2.2)), deploy=Deploy(
                status="failed", started_at=time(at(14.6)), duration_ms=4300,
                commands=[ran('ssh prod deploy < "$OPSGATE_PINS"', "Error: port 8000 is taken\n", 1)],
                containers=[
                    Container(service="backend", state="exited", exit_code=1, restarts=3,
                              log_tail="OSError: address already in use\n"),
                    Container(service="worker", state="running", exit_code=None, restarts=1, log_tail="")])),
                recovering(always("ok"))),
            "failed", "deploy_failed", 1,
        ),
        "failed-deploy-no-rollback": record(
            with_rollback(Stages(preflight=baseline(), deploy=Deploy(
                status="failed", started_at=time(at(3)), duration_ms=600_000,
                commands=[ran("ssh prod deploy", "Pulling backend\n", None, 600_000, timed_out=True,
                              explanation="timed out after 10 min")])), lambda _: withheld(None)),
            "failed", "deploy_failed", 1, trigger="deploy",
        ),
        "failed-interrupted-before-deploy": record(
            Stages(preflight=baseline(), publish=Publish(
                status="interrupted", started_at=time(at(2.2)), duration_ms=3000)),
            "failed", "interrupted", 130, images=[],
        ),
        "failed-interrupted-gate": record(
            _interrupted(released(after(2500))), "failed", "interrupted", 143,
            next_steps=["v42 was deployed and is not proven; look: opsgate gate --env production"],
        ),
        "failed-rollback-interrupted": record(
            with_rollback(released(dead), _cut_off), "failed", down, 130, next_steps=STEPS
        ),
        "failed-internal-error": record(
            Stages(preflight=baseline(), publish=publish(at(2.2)), deploy=deploy(at(14.6))),
            "failed", "internal_error", 70,
        ),
        "rollback-recovered": by_hand(
            rolled_back(START, recovery=played(plays(after(900), OLD), at(25.4)), trigger="manual",
                        reason="checkout fails for customers"),
            "passed", "recovered", 0,
        ),
        "rollback-failed": by_hand(
            rolled_back(START, ok=False, trigger="manual", reason="drill"),
            "failed", "rollback_failed", 3, next_steps=STEPS,
        ),
        "rollback-not-recovered": by_hand(
            rolled_back(START, recovery=played(plays(dead, OLD), at(25.4)), trigger="manual"),
            "failed", "not_recovered", 3, next_steps=STEPS,
        ),
        "rollback-unverified": by_hand(
            rolled_back(START, trigger="manual"), "skipped", "recovery_unverified", 0
        ),
        "rollback-no-last-good": by_hand(
            withheld("no_last_good", "manual"), "failed", "rollback_failed", 3
        ),
        "failed-not-ready": record(
            Stages(preflight=Preflight(
                status="failed", started_at=time(START), duration_ms=400, targets=[],
                rollback_check=ran("ssh prod true", "Permission denied (publickey).\n", 255))),
            "failed", "interrupted", 2, images=[],
            next_steps=["the rollback check failed: exit 255\n  nothing was touched; mend it first"],
        ),
        "failed-evidence-lost": record(
            released(after(900)), "failed", "interrupted", 74,
            next_steps=["Evidence could not be written: artifacts/rollout: No space left on device"],
        ),
        "failed-taken-over": record(
            _interrupted(released(dead)), "failed", "interrupted", 75,
            next_steps=["run 20261124T140130Z-0a1b2c took over this environment"],
        ),
        "unfinished": record(
            Stages(preflight=baseline(), publish=publish(at(2.2)), deploy=Deploy(
                status="interrupted", started_at=time(at(14.6)))),
            "failed", "interrupted", None, finished_at=None, duration_ms=None,
        ),
        "hostile": hostile(),
    }  # fmt: skip


def _interrupted(stages: Stages) -> Stages:
    """The gate cut off after two seconds."""
    stages.gate.status, stages.gate.duration_ms, stages.gate.status_reason = (
        "interrupted",
        2000,
        "interrupted",
    )
    for target in stages.gate.targets or []:
        target.attempts = [attempt for attempt in target.attempts if attempt.end_ms <= 2000]
        tally = Tally()
        for attempt in target.attempts:
            tally = tally.after(attempt, POLICY)
        target.healthy, target.first_healthy_ms = tally.is_healthy(POLICY), tally.first_healthy_ms
    return stages


def _cut_off(when: datetime) -> Rollback:
    rollback = rolled_back(when)
    rollback.status, rollback.succeeded, rollback.recovered, rollback.exit_code = (
        "interrupted",
        None,
        None,
        None,
    )
    return rollback


NASTY = (
    "<script>document.title='owned'</script><img src=//evil.example onerror=alert(1)>\"'&`|"
    "\x1b[31mred\x07\u202egnp.exe\u2066\r\n::error::pwned ##[error]pwned @octocat #1 **bold** ]]> --> ${x}"
)


def hostile() -> Evidence:
    """A failed release in which every text that others control is out to do harm."""
    stages = with_rollback(released(always("503")), recovering(always("503")))
    for gate in (stages.gate, stages.rollback.recovery or stages.gate):
        for target in gate.targets or []:
            target.name = f"{target.name} {NASTY}"
            target.url = f"https://app.example.com/{NASTY}?q={'A' * 8192}"
            target.attempts = [
                msgspec.structs.replace(attempt, detail=NASTY, revision=NASTY) for attempt in target.attempts
            ]
    for command in [*(stages.rollback.commands or []), *(stages.deploy.commands or [])]:
        command.output_tail = f"{NASTY}\n```\n</details>\n" * 5
        command.command += f" {NASTY}"
        command.explanation = NASTY if command.exit_code else ""
    stages.publish.tag = NASTY
    picture = Image(name=NASTY, reference=f"registry.example.com/{NASTY}", digest=f"sha256:{'0' * 64}")
    return record(
        stages, "failed", "probe_failures", 3, revision=f"v42 {NASTY}", images=[picture],
        next_steps=[NASTY] * 3, environment=f"prod {NASTY}", failed_urls=[NASTY],
        ci=Ci(provider="github", run_url=f"javascript:alert(1)//{NASTY}", actor=NASTY),
    )  # fmt: skip


GOLDEN = Path(__file__).parent / "data" / "golden"
SUFFIXES = {"text": "txt", "md": "md", "html": "html", "junit": "xml", "env": "env", "intoto": "intoto.json"}


def files() -> dict[Path, str]:
    """What belongs into `tests/data`: the records, and each view of each."""
    found = {}
    for name, one in corpus().items():
        found[DIRECTORY / f"{name}.json"] = encode(one, Redactor()).decode()
        for view, suffix in SUFFIXES.items():
            found[GOLDEN / f"{name}.{suffix}"] = FORMATS[view](one)
    return found


if __name__ == "__main__":
    for directory in (DIRECTORY, GOLDEN):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
    for path, text in files().items():
        path.write_text(text, encoding="utf-8", newline="")
