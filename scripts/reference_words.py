"""What the reference says of each key, variable, field and value; one without words stops the generator."""

from __future__ import annotations

from typing import Final

TYPES: Final = {
    "boolean": "true or false",
    "check_url": "URL with http://, https:// or tcp://",
    "check_webhook": "URL with https://, or http:// to this machine",
    "command": "command",
    "count": "whole number",
    "line": "text",
    "name": "name",
    "parse_control": "URL with http:// or https://",
    "parse_duration": "duration",
    "parse_target": "URL or target",
    "pattern": "regular expression",
    "positive_count": "whole number, 1 or more",
    "redact_pattern": "regular expression",
    "rollback": 'command, list of commands, or `"redeploy"`',
    "soak": "duration, may be 0",
    "string": "text",
    "variable_name": "name of a variable",
    "_headers": "table of name = text",
    "_json": "table of dotted path = value",
    "_method": '`"GET"` or `"HEAD"`',
    "_name": "text, at most 200 characters",
    "_request_headers": "table of name = text",
    "_revision": "`json:PATH` or `header:NAME`",
    "_status": 'code, range such as `"200-299"`, or list of these',
    "_tls_days": "number of days",
}
"""The rule of a key in words, by the rule's function."""

KEYS: Final = {
    "default_environment": "The environment that is meant where neither `--env` nor `OPSGATE_ENV` names one.",
    "evidence_dir": "Where evidence is kept. A relative path starts at the file's directory.",
    "production": "Refuses floating tags, image names without a registry, and a dirty work tree.",
    "urls": "What has to serve. Without any, nothing is validated, and every output says so.",
    "control_urls": (
        "URLs that are up whatever the rollout does. When no target can be reached at all, they tell a dead "
        "runtime from a dead line."
    ),
    "deploy": (
        'Brings the published images out. `"compose"` is opsgate\'s own `docker compose up -d --no-build` '
        "with the pins."
    ),
    "rollback": (
        "Brings the release before back. A list is a chain, tried in order until one succeeds. "
        '`"redeploy"` runs `deploy` with the last good release.'
    ),
    "rollback_check": (
        "A harmless command that proves the way back works now. Where it fails, nothing is touched."
    ),
    "incident": "Run last when the status is failed, with the evidence.",
    "publish.compose_files": "The compose files whose images are built and pushed.",
    "publish.services": "Which services of theirs.",
    "publish.command": "A command in place of `docker compose build` and `push`.",
    "gate.deadline": "The verdict is given by then.",
    "gate.soak": "How long all required targets must stay healthy, at the same time.",
    "gate.interval": "Time between attempts at a healthy target, and the longest wait after a failed one.",
    "gate.attempt_timeout": "Hard limit of one attempt: name, connection, handshake, headers and body.",
    "gate.successes": "Healthy attempts in a row that a pass needs at least.",
    "gate.flaps": "How often a target may lose health after `successes` in a row; once more is `unstable`.",
    "timeouts.publish": "Limit of the publish hook.",
    "timeouts.deploy": "Limit of the deploy hook.",
    "timeouts.rollback": "Limit of each command of the rollback chain.",
    "timeouts.rollback_check": "Limit of the rollback check.",
    "timeouts.incident": "Limit of the incident hook.",
    "notify.webhook_url": "Is sent the record as JSON after a failure, and after the pass that ends it.",
    "notify.webhook_secret_env": "The variable that holds the key of the webhook's signature.",
    "notify.github_issues": "Opens an issue for a failure, comments it, and closes it after a pass.",
    "redact.patterns": (
        "What matches is masked wherever it would be written. Those of the top and of the environment add up."
    ),
    "max_rollbacks_per_day": "Automatic rollbacks of an environment in 24 hours; 0 allows none.",
}

TARGET: Final = {
    "url": "What is requested. `tcp://host:port` proves only that a connection is accepted.",
    "command": "In place of `url`: exit 0 is healthy, the last line of its output is the detail.",
    "name": "How outputs call it. Each target needs a name of its own.",
    "required": "False: probed and reported, and never decides.",
    "method": "HEAD gets no body, so nothing can be expected of one.",
    "request_headers": "Sent with each request; their values are masked everywhere.",
    "ca_file": "Certificates to trust in place of the system's; https only.",
    "status": (
        "Status codes that count as healthy. A code or range from 300 on takes a redirect as the answer; "
        "otherwise it is followed."
    ),
    "body": "Text that must appear in the first 64 KiB of the body.",
    "body_regex": "A regular expression that must match somewhere in the first 64 KiB.",
    "json": 'Values that must stand in the JSON body, for example `{ "checks.0.up" = true }`.',
    "headers": "Response headers and the values that they must have.",
    "revision": "Where the runtime says which revision it runs. It must be the one that is released.",
    "max_latency": "Until the last byte of the body; a slower answer is unhealthy.",
    "tls_days": "Least remaining life of the certificate; https only.",
}

VARIABLES: Final = {
    "RUNTIME_HEALTH_URLS": (
        "Required URLs, separated by commas, spaces or newlines. They replace those of the file; one that "
        "stands there too keeps its expectations."
    ),
    "RUNTIME_HEALTH_TOKEN": (
        "Bearer token for required targets. Sent over https or to this machine only, never to another host "
        "after a redirect."
    ),
    "RUNTIME_CONTROL_URLS": "As `control_urls`.",
    "RUNTIME_PUBLISH_COMMAND": "Publish hook, as `publish.command`.",
    "RUNTIME_DEPLOY_COMMAND": "Deploy hook, as `deploy`.",
    "RUNTIME_ROLLBACK_COMMAND": "Rollback hook: one command, as `rollback`.",
    "RUNTIME_ROLLBACK_CHECK_COMMAND": "As `rollback_check`.",
    "RUNTIME_INCIDENT_COMMAND": "Incident hook, as `incident`.",
    "RUNTIME_WEBHOOK_URL": "As `notify.webhook_url`.",
    "RUNTIME_WEBHOOK_SECRET": (
        "Key of the webhook's signature; `notify.webhook_secret_env` names another variable."
    ),
    "OPSGATE_ENV": "As `--env`.",
    "OPSGATE_CONFIG": "The configuration file, in place of the one that would be found.",
    "OPSGATE_EVIDENCE_DIR": "As `--evidence-dir`.",
    "OPSGATE_RUN_ID": "The run to begin or to go on with: 1 to 64 of `A-Za-z0-9._-`, no leading dot.",
    "OPSGATE_REVISION": "As `--revision`.",
    "OPSGATE_ROLLBACK": "`false` is `--no-rollback`.",
    "OPSGATE_FAIL_ON_SKIPPED": "`true` is `--fail-on-skipped`.",
    "OPSGATE_DEADLINE": "As `--deadline`.",
    "OPSGATE_SOAK": "As `--soak`.",
    "OPSGATE_INTERVAL": "As `--interval`.",
    "OPSGATE_ATTEMPT_TIMEOUT": "As `--attempt-timeout`.",
    "OPSGATE_SUCCESSES": "As `--successes`.",
    "OPSGATE_FLAPS": "As `--flaps`.",
}

FOREIGN: Final = {
    "`REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE`, `SSL_CERT_FILE`, `SSL_CERT_DIR`": (
        "Certificates to trust, the first that is set; a target's `ca_file` goes before all of them."
    ),
    "`HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`": (
        "Proxies, in lower case too. `NO_PROXY` takes names, addresses and networks such as `10.0.0.0/8`."
    ),
    "`NO_COLOR`": "No colours.",
    "`TERM=dumb`": "One line for each event in place of the live table.",
    "`CI`": "One line for each event, also on a terminal.",
    "`GITHUB_ACTIONS` and the other `GITHUB_*` of a workflow": (
        "Run id, commit, outputs, summary and annotations; `GITHUB_TOKEN` for issues only."
    ),
    "`DOCKER_CONFIG`": "Where the registry's credentials are looked for; otherwise `~/.docker`.",
}

HOOKS: Final = {
    "publish": "builds and pushes, in place of docker compose",
    "deploy": "brings the images of the run out",
    "rollback": "brings the release before back",
    "rollback_check": "proves that a rollback would work, changes nothing",
    "incident": "tells somebody",
}

HOOK_VARIABLES: Final = {
    "OPSGATE_RUN_ID": "The run.",
    "OPSGATE_ENV": "The environment.",
    "OPSGATE_STAGE": "`publish`, `deploy`, `rollback_check`, `rollback` or `incident`.",
    "OPSGATE_REVISION": "The revision being released; for a redeploy the one that comes back.",
    "OPSGATE_IMAGES": "`name=reference@digest`, one a line. Lists are cut after a whole line, at 64 KiB.",
    "OPSGATE_PINS": "Path of a compose override file that pins the digests.",
    "OPSGATE_TAG": "The tag of the run's images.",
    "OPSGATE_EVIDENCE": "Path of the record so far.",
    "OPSGATE_OUTPUT": "Path of a file in which the hook may leave `revision=…` and `image.NAME=…`.",
    "OPSGATE_STATUS": (
        "For rollback and incident: `failed`. A rollback that a person runs is told what its run came to "
        "before; empty in a new run."
    ),
    "OPSGATE_STATUS_REASON": "For rollback and incident: why; empty where the status is.",
    "OPSGATE_FAILED_URLS": "For rollback and incident: the targets that failed, one a line, cut alike.",
    "OPSGATE_LAST_GOOD_REVISION": "For rollback and incident: the last good revision.",
    "OPSGATE_LAST_GOOD_IMAGES": "For rollback and incident: its images, as `OPSGATE_IMAGES`.",
    "OPSGATE_LAST_GOOD_PINS": "For rollback and incident: its compose override file.",
}

REASONS: Final = {
    "all_probes_healthy": ("passed", "Every required target stayed healthy for the whole soak."),
    "recovered": ("passed", "A manual rollback succeeded, and the runtime serves."),
    "no_urls_configured": ("skipped", "No target is required: nothing was validated."),
    "not_gated": ("skipped", "`publish` or `deploy` alone: done, and nothing validated yet."),
    "recovery_unverified": ("skipped", "A manual rollback succeeded, and nothing was probed after it."),
    "probe_failures": ("failed", "A required target was not healthy by the deadline."),
    "unstable": ("failed", "A target lost its health too often."),
    "wrong_revision": ("failed", "A target serves, and reports another revision than the released one."),
    "observer_offline": ("failed", "Neither the targets nor the control URLs could be reached from here."),
    "publish_failed": ("failed", "Building, pushing or resolving failed. Nothing was deployed."),
    "deploy_failed": ("failed", "The deploy hook failed."),
    "interrupted": (
        "failed",
        "A signal, a takeover or a mistake ended the run, or it is still under way, or it was killed.",
    ),
    "internal_error": ("failed", "A defect in opsgate."),
    "rollback_failed": ("failed", "A manual rollback did not succeed."),
    "not_recovered": ("failed", "A manual rollback succeeded, and the runtime does not serve."),
}

WITHHELD: Final = {
    "observer_offline": "the fault is the observer's: the runtime may be well",
    "no_last_good": "`redeploy`, and no release passed before this one",
    "no_rollback": "`--no-rollback` or `OPSGATE_ROLLBACK=false`",
    "circuit_open": "`max_rollbacks_per_day` is used up",
}

KINDS: Final = {
    "dns": "The name could not be resolved.",
    "refused": "The connection was refused; without a `remote_ip`, the network could not be reached.",
    "reset": "The connection was cut.",
    "timeout": "The limit of the attempt was reached.",
    "tls": "No trusted TLS connection.",
    "protocol": "Not proper HTTP.",
    "status": "Another status code than expected.",
    "redirect": "A redirect to another host, from https to http, or one too many.",
    "too_large": "More than 1 MiB.",
    "truncated": "The body ended too early.",
    "health_document": "The JSON document says that it is unhealthy.",
    "body": "The body holds no such text.",
    "json": "Not JSON, or another value than expected.",
    "header": "A response header is missing or different.",
    "latency": "Slower than `max_latency`.",
    "certificate": "The certificate lives less than `tls_days`.",
    "revision": "Another revision than expected, or none.",
    "exit": "A command did not end with 0.",
}

_STAGE: Final = {
    "status": "How it went. A stage that has not run says `skipped`, and nothing else.",
    "started_at": "When it began.",
    "duration_ms": "How long it took; missing while it runs, and where opsgate was killed.",
}

FIELDS: Final = {
    "Evidence": {
        "schema": "The version of the record.",
        "opsgate_version": "Who wrote it.",
        "run_id": "The run, unique in its directory.",
        "environment": "What was rolled out to.",
        "trigger": "The task that wrote it last.",
        "started_at": "When the run began.",
        "finished_at": "When it ended; null: under way, or killed.",
        "duration_ms": "From the one to the other.",
        "status": "The verdict. Failed until the run has ended.",
        "status_reason": "Why, from a closed list.",
        "exit_code": "The exit code of the task.",
        "revision": "What was released; null where nobody said.",
        "images": "What was published.",
        "failed_urls": "The required targets that were not healthy: the masked URL, or a command's name.",
        "attempt_count": "Attempts of the gate at all targets.",
        "ci": "Where it ran.",
        "stages": "What happened, in order.",
        "next_steps": "What a person does now, line by line; empty when nothing is left to do.",
        "previous": "The ledger's last hash before the run.",
    },
    "Image": {
        "name": "The service, or what the hook called it.",
        "reference": "`registry/name:tag`.",
        "digest": "`sha256:…`, as the registry serves it.",
    },
    "Ci": {
        "provider": "`github`, or null.",
        "repository": "`owner/name`.",
        "workflow": "Its name.",
        "run_url": "Its page.",
        "commit": "What was checked out.",
        "actor": "Who started it.",
    },
    "Stages": {
        "preflight": "Before the first side effect.",
        "publish": "Images.",
        "deploy": "The deploy hook.",
        "gate": "The verdict.",
        "rollback": "The way back.",
    },
    "Preflight": {
        **_STAGE,
        "targets": "The baseline: one look at each target before the rollout.",
        "rollback_check": "The check of the way back; null when none is configured.",
        "warnings": "What is odd and stops nothing.",
    },
    "TargetResult": {
        "name": "The target.",
        "url": "Masked; null for a command.",
        "required": "Whether it decides.",
        "healthy": "Its last attempt was healthy, and it did nothing to fail the gate.",
        "first_healthy_ms": "Start of the first healthy attempt, since the gate's start; null without one.",
        "flaps": "How often it lost its health after `successes` in a row.",
        "attempts": "Every attempt, in order.",
    },
    "Attempt": {
        "at_ms": "Its start, since the gate's start.",
        "elapsed_ms": "How long it took.",
        "ok": "Healthy.",
        "kind": "What went wrong, from a closed list; null when healthy.",
        "status_code": "The HTTP status, where one came.",
        "detail": "The same in words.",
        "remote_ip": "The address that answered; null when none did.",
        "bytes": "Bytes received, head and body.",
        "tls_not_after": "The certificate's end of life.",
        "revision": "The revision that the runtime reported.",
    },
    "Command": {
        "command": "As configured, masked.",
        "exit_code": "Null when it did not exit by itself.",
        "duration_ms": "How long it ran.",
        "timed_out": "It was ended at its limit.",
        "output_tail": "The last 64 KiB of its output, masked and made harmless.",
        "explanation": "Why it counts as failed, in words.",
        "survivors": "Its processes that were still alive when it had ended.",
        "output_held": "`true` where one of them still held its output: the next write there kills it.",
    },
    "Publish": {
        **_STAGE,
        "commands": "What was run.",
        "tag": "The tag of the images.",
        "detail": "What failed, in words.",
    },
    "Deploy": {
        **_STAGE,
        "commands": "What was run.",
        "containers": "Containers that did not stay up, found after a failed gate.",
        "detail": "What failed, in words.",
    },
    "Container": {
        "service": "The compose service.",
        "state": "`exited`, `restarting` and so on.",
        "exit_code": "The container's.",
        "restarts": "How often it was started again.",
        "log_tail": "The end of its log.",
    },
    "Gate": {
        **_STAGE,
        "status_reason": "Why.",
        "policy": "What it was decided under.",
        "revision": "What the targets had to report; null when that was not judged.",
        "targets": "What each target answered.",
        "control": "What the control URLs answered; empty when they were not asked.",
    },
    "Policy": {
        "deadline": "The verdict is given by then.",
        "soak": "How long health must last.",
        "interval": "Time between attempts.",
        "attempt_timeout": "Limit of one attempt.",
        "successes": "Healthy attempts in a row, at least.",
        "flaps": "Losses of health that are forgiven.",
    },
    "Rollback": {
        **_STAGE,
        "attempted": "A command was started.",
        "withheld": "Why none was, although one is configured; otherwise null.",
        "trigger": "`auto` after a failed gate or deploy, `manual` for `opsgate rollback`.",
        "reason": "A person's words: `--reason`.",
        "succeeded": "A command of the chain ended well; null when none was started.",
        "recovered": "The runtime was proven to serve afterwards; null when nobody looked.",
        "exit_code": "Of the last command.",
        "commands": "The chain, as far as it was run.",
        "recovery": "The probing afterwards.",
        "last_good": "Where the way back leads; null when nowhere.",
        "took_over": "The run that `--force` took the environment from.",
        "earlier": "Rollbacks of the same run before this one, the oldest first; missing without one.",
    },
    "Rollout": {
        "run_id": "The run that brought it out.",
        "revision": "Its revision.",
        "images": "Its images.",
        "finished_at": "When it had passed.",
        "tag": "The tag of its images.",
        "pins": "Path of its compose override; null when it left none.",
    },
    "Takeover": {
        "run_id": "That run.",
        "pid": "Its process.",
        "host": "Its machine.",
        "reached": "It gave way in time; when false, its hook may still be running.",
    },
}

FORMATS: Final = {
    "text": "one screen: what runs now, what happened, why, what to do next",
    "json": "the record itself",
    "md": "a job summary, a chat, an issue",
    "html": "one page without network or script: every attempt on a time axis",
    "junit": "a target is a test case, for test reports of CI systems",
    "env": "shell variables, as in `latest.env`",
    "intoto": "an in-toto statement on the images, or without any on the record, to be signed",
}
