"""The evidence record, schema `opsgate/evidence/v1`, as it grows during a run.

These structs are the schema: `evidence.schema.json` is generated from them. Times of day are RFC 3339
in UTC with milliseconds; `_ms` are milliseconds; a policy's durations are seconds. A stage that has
not run holds nothing but `status: skipped`, so every other field of a stage may be unset.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from opsgate import __version__
from opsgate.evidence.masking import changed
from opsgate.redact import Redactor, mask_url
from opsgate.verdict.targets import Attempt, Ms, Policy, Target, Whole, WholeMs

SCHEMA: Final = "opsgate/evidence/v1"

Status = Literal["passed", "failed", "skipped"]
StageStatus = Literal["passed", "failed", "skipped", "interrupted"]
StatusReason = Literal[
    "all_probes_healthy", "no_urls_configured", "not_gated",
    "probe_failures", "unstable", "wrong_revision", "observer_offline",
    "publish_failed", "deploy_failed", "interrupted", "internal_error",
    "recovered", "rollback_failed", "not_recovered", "recovery_unverified",
]  # fmt: skip
Withheld = Literal["observer_offline", "no_last_good", "no_rollback", "circuit_open"]
Trigger = Literal["release", "publish", "deploy", "gate", "rollback"]
Time = Annotated[str, msgspec.Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")]
RunId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$")]
Hash = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """A published image: its service's name, where it was pushed, and what the registry holds."""

    name: str
    reference: str
    digest: str

    @property
    def pinned(self) -> str:
        """The reference by digest, its tag left out: `registry/name@sha256:…`."""
        repository, _, tag = self.reference.rpartition(":")
        return f"{repository if repository and '/' not in tag else self.reference}@{self.digest}"


class Ci(msgspec.Struct, kw_only=True):
    """Where the run took place; outside CI all but `actor` is null. `actor` is who started it."""

    provider: str | None = None
    repository: str | None = None
    workflow: str | None = None
    run_url: str | None = None
    commit: str | None = None
    actor: str | None = None


class Command(msgspec.Struct, kw_only=True):
    """A hook's command that was run, masked."""

    command: str
    exit_code: Whole | None
    duration_ms: WholeMs
    timed_out: bool
    output_tail: str
    explanation: str = ""
    """Why it counts as failed, in words; empty after success."""
    survivors: list[Whole] = []
    """Ids of its processes that were still alive when it had ended."""
    output_held: bool | UnsetType = UNSET
    """True where one of them still held its output: the next write there kills it."""

    @property
    def succeeded(self) -> bool:
        """It did what it was run for: exit 0, in time, and what it left can be used."""
        return self.exit_code == 0 and not self.timed_out and not self.explanation

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        return self.explanation or f"exit {self.exit_code}"


class TargetResult(msgspec.Struct, kw_only=True):
    """What one target answered."""

    name: str
    url: str | None
    required: bool
    healthy: bool
    first_healthy_ms: Ms | None
    flaps: Whole
    attempts: list[Attempt]

    @classmethod
    def untried(cls, target: Target) -> TargetResult:
        """A target without attempts."""
        return cls(
            name=target.name,
            url=None if target.url is None else mask_url(target.url),
            required=target.required,
            healthy=False,
            first_healthy_ms=None,
            flaps=0,
            attempts=[],
        )


def _required(targets: list[TargetResult] | UnsetType) -> list[TargetResult]:
    return [target for target in targets or [] if target.required]


class Stage(msgspec.Struct, kw_only=True):
    """What all stages have."""

    status: StageStatus = "skipped"
    started_at: Time | UnsetType = UNSET
    duration_ms: WholeMs | UnsetType = UNSET

    def __post_init__(self) -> None:
        _check_times(self.started_at)

    @property
    def completed(self) -> bool:
        """The stage ran to its end, whatever came of it."""
        return self.duration_ms is not UNSET and self.status != "interrupted"


class Preflight(Stage, kw_only=True):
    """What was looked at before the first side effect, and the baseline of each target."""

    targets: list[TargetResult] | UnsetType = UNSET
    rollback_check: Command | UnsetType | None = UNSET
    warnings: list[str] | UnsetType = UNSET

    @property
    def required(self) -> list[TargetResult]:
        """The targets that decide."""
        return _required(self.targets)


class Container(msgspec.Struct, kw_only=True):
    """A compose container that did not stay up, as found after a failed gate."""

    service: str
    state: str
    exit_code: Whole | None
    restarts: Whole
    log_tail: str


class Publish(Stage, kw_only=True):
    """How the images came to be."""

    commands: list[Command] | UnsetType = UNSET
    tag: str | UnsetType = UNSET
    detail: str | UnsetType = UNSET
    """What failed, in words."""


class Deploy(Stage, kw_only=True):
    """The deploy hook."""

    commands: list[Command] | UnsetType = UNSET
    containers: list[Container] | UnsetType = UNSET
    detail: str | UnsetType = UNSET


class Gate(Stage, kw_only=True):
    """The probing, and everything its verdict was decided on."""

    status_reason: StatusReason | UnsetType = UNSET
    policy: Policy | UnsetType = UNSET
    revision: str | UnsetType | None = UNSET
    """The revision that the targets had to report; null when it was not judged."""
    targets: list[TargetResult] | UnsetType = UNSET
    control: list[TargetResult] | UnsetType = UNSET

    @property
    def required(self) -> list[TargetResult]:
        """The targets that decide."""
        return _required(self.targets)

    @property
    def failed_names(self) -> list[str]:
        """The URLs of those that are not healthy; a command target by its name."""
        return [target.url or target.name for target in self.required if not target.healthy]


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """What an earlier run brought out: the way back leads to one of these."""

    run_id: RunId
    revision: str | None
    images: tuple[Image, ...] = ()
    finished_at: Time | None = None
    tag: str | None = None
    pins: str | None = None
    """Absolute path of its compose override; null when it left none."""


class Takeover(msgspec.Struct, frozen=True, kw_only=True):
    """The run that `rollback --force` took the environment from."""

    run_id: str
    pid: Whole
    host: str
    reached: bool
    """It acknowledged in time; when false its hook may still be running."""


class Rollback(Stage, kw_only=True):
    """The rollback, or why there was none."""

    attempted: bool | UnsetType = UNSET
    withheld: Withheld | UnsetType | None = UNSET
    trigger: Literal["auto", "manual"] | UnsetType | None = UNSET
    reason: str | UnsetType | None = UNSET
    succeeded: bool | UnsetType | None = UNSET
    recovered: bool | UnsetType | None = UNSET
    exit_code: Whole | UnsetType | None = UNSET
    commands: list[Command] | UnsetType = UNSET
    recovery: Gate | UnsetType = UNSET
    last_good: Rollout | UnsetType | None = UNSET
    took_over: Takeover | UnsetType = UNSET
    earlier: list[Rollback] | UnsetType = UNSET
    """Rollbacks of the same run before this one, the oldest first."""


class Stages(msgspec.Struct, kw_only=True):
    """The stages in their order."""

    preflight: Preflight = msgspec.field(default_factory=Preflight)
    publish: Publish = msgspec.field(default_factory=Publish)
    deploy: Deploy = msgspec.field(default_factory=Deploy)
    gate: Gate = msgspec.field(default_factory=Gate)
    rollback: Rollback = msgspec.field(default_factory=Rollback)


class Evidence(msgspec.Struct, kw_only=True):
    """One run's record, whole. Until it is finished it says `failed`/`interrupted`."""

    schema: Literal["opsgate/evidence/v1"] = SCHEMA
    opsgate_version: str = __version__
    run_id: RunId
    environment: str
    trigger: Trigger
    started_at: Time
    finished_at: Time | None = None
    duration_ms: WholeMs | None = None
    status: Status = "failed"
    status_reason: StatusReason = "interrupted"
    exit_code: Whole | None = None
    revision: str | None = None
    images: list[Image] = []
    failed_urls: list[str] = []
    attempt_count: Whole = 0
    ci: Ci = msgspec.field(default_factory=Ci)
    stages: Stages = msgspec.field(default_factory=Stages)
    next_steps: list[str] = []
    previous: Hash | None = None

    def __post_init__(self) -> None:
        _check_times(self.started_at, self.finished_at)

    @property
    def deployed(self) -> bool:
        """The deploy stage of this run was begun: its hook may have been started."""
        return self.stages.deploy.started_at is not UNSET

    @property
    def rollbacks(self) -> list[Rollback]:
        """The rollbacks of this run that were begun, the oldest first."""
        newest = self.stages.rollback
        return [one for one in (*(newest.earlier or ()), newest) if one.attempted is True]

    @property
    def proven(self) -> bool:
        """The gate passed on what this run brought out, not on what its rollback brought back."""
        stages = self.stages
        cut_short = stages.deploy.status in {"failed", "interrupted"}
        return stages.gate.status == "passed" and not (cut_short or self.rollbacks)


def new_run_id(epoch: float) -> RunId:
    """`<UTC yyyymmddThhmmssZ>-<6 random hex>`."""
    return f"{datetime.fromtimestamp(epoch, UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def timestamp(epoch: float) -> Time:
    """Seconds since the epoch as RFC 3339 in UTC, with milliseconds."""
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def encode(record: Evidence, redactor: Redactor) -> bytes:
    """The record's file, byte for byte: UTF-8 JSON, indented by two, every secret masked."""
    return pretty(masked(record, redactor))


def masked(record: Evidence, redactor: Redactor) -> Evidence:
    """The record with every secret masked. Whatever holds none is shared with it, not copied."""
    known: dict[str, str] = {}

    def mask(text: str) -> str:
        shown = known.get(text)
        if shown is None:
            shown = redactor.scrub_value(text.encode("utf-8", "replace").decode())
            # The same object where nothing changed, so that no copy is made of what holds it.
            shown = known[text] = text if shown == text else shown
        return shown

    return changed(record, mask)


def pretty(document: object) -> bytes:
    """The document, such as a record that is masked already, as a file: JSON in UTF-8, indented by two."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def decode(data: bytes) -> Evidence:
    """The record in `data`; raises one of `files.DAMAGED`."""
    # A field that this version does not know is passed over, whatever bytes it holds.
    data.decode()
    return msgspec.json.decode(data, type=Evidence)


def _check_times(*times: Time | UnsetType | None) -> None:
    """Raise `ValueError` for a time that does not exist, or that no clock can have shown."""
    for time in times:
        if time and not 1900 <= datetime.fromisoformat(time).year < 3000:  # noqa: PLR2004 - a calendar's
            raise ValueError(f"{time} is not a time of a run")
