"""Which targets a command looks at: those of the flag, of the variable or of the file."""

from __future__ import annotations

import os

import msgspec

from opsgate.redact import Redactor
from opsgate.settings import urls
from opsgate.settings.mistakes import Problem
from opsgate.settings.sources import Sources
from opsgate.settings.targets import LONGEST_NAME, parse_control, url_target
from opsgate.verdict.targets import Target


def targets(sources: Sources) -> tuple[Target, ...]:
    """Those that decide and those that are only reported. A mistake is reported to `sources`."""
    listed = _listed_targets(sources)
    text = sources.variable("RUNTIME_HEALTH_URLS")
    if sources.flags.url:
        where, given = "--url", [url for item in sources.flags.url for url in urls.split_flag(item)]
    elif text is not None and urls.split_list(text):
        where, given = "RUNTIME_HEALTH_URLS", list(urls.split_list(text))
    else:
        where, given = "", []
    chosen: dict[str, list[Target]] = {}
    for item in given:
        url = sources.judge("urls", where, urls.check_url, item)
        if url is not None and (form := urls.normal(url)) not in chosen:
            known = [
                target for target in listed if target.url is not None and urls.normal(target.url) == form
            ]
            # Whoever names a URL on the spot means it to decide, whatever the file says.
            chosen[form] = [
                msgspec.structs.replace(_with_ca_file(sources, target), required=True) for target in known
            ] or [url_target(url)]
    if not chosen:
        return tuple(_with_ca_file(sources, target) for target in listed)
    sources.origins["urls"] = "flag --url" if where == "--url" else where
    return _numbered([target for group in chosen.values() for target in group])


def _listed_targets(sources: Sources) -> tuple[Target, ...]:
    """The file's targets; each must have a name of its own."""
    by_name: dict[str, Target] = {}
    for target in sources.listed("urls", ()):
        if target.name in by_name:
            text = f'two targets are named "{target.name}"'
            hint = "Give one of them another name."
            sources.report(Problem(where=sources.where("urls"), text=text, hint=hint))
        by_name.setdefault(target.name, target)
    return tuple(by_name.values())


def _with_ca_file(sources: Sources, target: Target) -> Target:
    if target.ca_file is None:
        return target
    path = sources.directory / target.ca_file
    if not os.path.isfile(path):
        text = f'the ca_file of "{target.name}" does not exist, or cannot be reached: {path}'
        hint = "Relative paths start at the configuration file's directory."
        sources.report(Problem(where=sources.where("urls"), text=text, hint=hint))
    return msgspec.structs.replace(target, ca_file=str(path))


def control(sources: Sources) -> tuple[Target, ...]:
    """The URLs that are up whatever the rollout does, each once."""
    found = sources.listed("control_urls", ())
    name = "RUNTIME_CONTROL_URLS"
    judged = [
        sources.judge("control_urls", name, parse_control, url)
        for url in urls.split_list(sources.variable(name) or "")
    ]
    if given := [target for target in judged if target is not None]:
        sources.origins["control_urls"] = name
        found = given
    distinct: dict[str, Target] = {}
    for target in found:
        distinct.setdefault(urls.normal(target.url), target)
    return _numbered(list(distinct.values()))


def named(targets: tuple[Target, ...], redactor: Redactor) -> tuple[Target, ...]:
    """The targets by names that everybody may see: masked, and then a command's is cut short."""
    named = []
    for target in targets:
        name = redactor.scrub(target.name)
        if target.url is None and len(name) > LONGEST_NAME:
            name = f"{name[: LONGEST_NAME - 1]}…"
        named.append(msgspec.structs.replace(target, name=name))
    return _numbered(named)


def _numbered(targets: list[Target]) -> tuple[Target, ...]:
    """Different URLs can look alike once masked: later ones get a number, for names are keys."""
    names: set[str] = set()
    result = []
    for target in targets:
        name, number = target.name, 1
        while name in names:
            number += 1
            name = f"{target.name} ({number})"
        names.add(name)
        result.append(target if name == target.name else msgspec.structs.replace(target, name=name))
    return tuple(result)
