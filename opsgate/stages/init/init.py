"""The init task: a commented opsgate.toml, the workflow, a .gitignore line. Never overwrites anything."""

from __future__ import annotations

import json
import os
import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Final, Literal

import msgspec

from opsgate import __version__
from opsgate.errors import ConfigurationError
from opsgate.settings.file import repository_root
from opsgate.settings.variables import RUNTIME
from opsgate.stages.init.composefile import Found, Service, find

CONFIG: Final = "opsgate.toml"
WORKFLOW: Final = ".github/workflows/publish-images.yml"
IGNORED: Final = "/artifacts/rollout/"
_IGNORES: Final = frozenset(
    {"artifacts", "artifacts/rollout", "artifacts/*", "artifacts/**", "artifacts/rollout/*"}
)
_YAML_WORDS: Final = frozenset({"true", "false", "yes", "no", "on", "off", "y", "n", "null"})
_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One file, and what becomes of it."""

    path: Path
    action: Literal["write", "append", "keep"]
    text: str = ""
    """What is written or appended."""
    why: str = ""
    """Why the file stays as it is."""


class Workflow(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between the workflows of two repositories."""

    title: str = "Publish images and gate the rollout"
    environment: str = "production"
    branch: str = "main"
    registry: str = "${{ vars.REGISTRY }}"
    environ: str = ""
    """More variables of the job, each on a line of its own that begins with a line feed."""
    prepare: str = ""
    """More steps after the installation."""
    install: str = f"python -m pip install opsgate=={__version__}"
    run: str = "opsgate"

    def render(self) -> str:
        """The file."""
        text = _template("workflow.yml")
        secrets = "\n".join(f"          {name}: ${{{{ secrets.{name} || vars.{name} }}}}" for name in RUNTIME)
        for name in self.__struct_fields__:
            text = text.replace(f"@{name}@", getattr(self, name))
        plain = re.match(r"[A-Za-z]", self.branch) and self.branch.lower() not in _YAML_WORDS
        text = text.replace("@filter@", self.branch if plain else json.dumps(self.branch))
        return text.replace("@secrets@", secrets)


def run(directory: Path, *, dry_run: bool = False) -> list[str]:
    """Write what is missing in the repository around `directory`; lines for a person.

    With `dry_run` nothing is written, and the lines show what would be. Raises `ConfigurationError`
    where a file cannot be written.
    """
    root = repository_root(directory)
    found = find(root)
    changes = plan(root, found)
    lines = [] if root == directory else [f"in {root}, the root of the repository"]
    for change in changes:
        name = change.path.relative_to(root)
        if change.action == "keep":
            lines.append(f"kept     {name}: {change.why}")
            continue
        if not dry_run:
            _write(change)
        done = {"write": "written ", "append": "appended"}[change.action]
        lines.append(f"{f'would {change.action}' if dry_run else done} {name}")
        if dry_run and name.name != Path(WORKFLOW).name:
            lines += [f"  | {line}" for line in change.text.splitlines()]
    return [*lines, "", *_next(found, changes, root)]


def plan(root: Path, found: Found | None) -> list[Change]:
    """The changes, in the order in which they are made."""
    return [_config(root, found), _workflow(root, found), _ignore(root)]


def _config(root: Path, found: Found | None) -> Change:
    path = root / CONFIG
    project = root / "pyproject.toml"
    if os.path.lexists(path):
        return Change(path=path, action="keep", why="it is there already")
    if "[tool.opsgate" in _read(project):
        return Change(path=project, action="keep", why="it has [tool.opsgate]")
    text = _template(CONFIG).replace("@publish@", _publish(found)).replace("@urls@", _urls(found))
    return Change(path=path, action="write", text=text)


def _workflow(root: Path, found: Found | None) -> Change:
    path = root / WORKFLOW
    if os.path.lexists(path):
        return Change(path=path, action="keep", why="it is there already")
    for other in sorted(path.parent.glob("*.y*ml")):
        if re.search(r"\b(opsgate|invoke) gate\b|\buses:.*/opsgate@", _read(other)):
            return Change(path=other, action="keep", why="it runs the gate already")
    workflow = Workflow(environment=_environment(root), branch=_branch(root), registry=_registry(found))
    return Change(path=path, action="write", text=workflow.render())


def _ignore(root: Path) -> Change:
    path = root / ".gitignore"
    if path.is_symlink():
        return Change(path=path, action="keep", why=f"it is a link, which git does not follow; add {IGNORED}")
    text = _read(path)
    if any(line.strip().strip("/") in _IGNORES for line in text.splitlines()):
        return Change(path=path, action="keep", why="it has artifacts/rollout/ already")
    start = "\n" if text and not text.endswith("\n") else ""
    return Change(path=path, action="append", text=f"{start}# Evidence of rollouts\n{IGNORED}\n")


def _registry(found: Found | None) -> str:
    """Where to log in: GitHub's own registry takes the job's token, any other is for a person to name."""
    hosts = {service.registry for service in found.services if service.builds} if found else set()
    return "${{ vars.REGISTRY || 'ghcr.io' }}" if hosts == {"ghcr.io"} else Workflow().registry


def _publish(found: Found | None) -> str:
    """The [publish] table; commented out until publishing can work."""
    file = found.path if found else "compose.yaml"
    built = [service for service in found.services if service.builds] if found else []
    names = ", ".join(_quoted(service.name) for service in built)
    lines = [
        "[publish]",
        f"compose_files = [{_quoted(file)}]",
        f"services = [{names}]" if names else 'services = ["backend"]',
    ]
    if built and all(service.tagged for service in built):
        return "\n".join(lines)
    told = (
        "# Images are built and pushed once the names of their services' images end in :${OPSGATE_TAG},\n"
        "# for example"
    )
    example = f"#   image: ghcr.io/OWNER/{built[0].name if built else 'backend'}:${{OPSGATE_TAG:-dev}}"
    return "\n".join([told, example, *(f"# {line}" for line in lines)])


def _urls(found: Found | None) -> str:
    looks = [look for service in found.services for look in _looks(service)] if found else []
    lines = ["urls = [", *looks, "]"]
    if looks and found:
        lines.insert(
            0, f"# The ports that {found.path} publishes, on this machine. EDIT: where people reach them."
        )
    else:
        lines.insert(
            0, "# EDIT: name at least one. Without any, nothing is validated, and every gate says so."
        )
        lines.insert(2, '  # "https://app.example.com/healthz",')
    return "\n".join(lines)


def _looks(service: Service) -> list[str]:
    """A line for each published port, the ones after the first with the port in their name."""
    lines = []
    for index, port in enumerate(service.ports):
        name = service.name if not index else f"{service.name} {port.published}"
        url = f"tcp://{port.address}:{port.published}"
        if port.speaks_http:
            url = f"{'https' if port.speaks_tls else 'http'}://{port.address}:{port.published}{port.path}"
        lines.append(f"  {{ name = {_quoted(name)}, url = {_quoted(url)} }},")
    return lines


def _next(found: Found | None, changes: list[Change], root: Path) -> list[str]:
    config = changes[0]
    file = config.path.name
    ports = any(service.ports for service in found.services) if found else False
    unnamed = "without any, every gate says NOT VALIDATED"
    if config.action == "keep":
        urls = f"check the URLs in {file}: {unnamed}"
    elif found and ports:
        urls = f"check the URLs in {file}: they are the ports of {found.path} on this machine"
    else:
        urls = f"name at least one URL in {file}: {unnamed}"
        urls += f" (no published port was found in {found.path})" if found else ""
    lines = [
        "What to do next",
        f"  1. {urls}",
        "  2. opsgate doctor     what is configured, what answers now",
        "  3. opsgate gate       the verdict that a rollout would get",
    ]
    changed = [str(each.path.relative_to(root)) for each in changes if each.action != "keep"]
    if changed:
        named = " and ".join([", ".join(changed[:-1]), changed[-1]] if len(changed) > 1 else changed)
        lines.append(f"  4. commit {named}")
    if found and found.others:
        lines.append(f"  Not looked at: {', '.join(found.others)}")
    return lines


def _write(change: Change) -> None:
    try:
        change.path.parent.mkdir(parents=True, exist_ok=True)
        # "x": a file that has come meanwhile is not ours either.
        with change.path.open("a" if change.action == "append" else "x", encoding="utf-8") as file:
            file.write(change.text)
    except OSError as error:
        raise ConfigurationError(
            f"{change.path} cannot be written: {error.strerror}",
            "what was written before it stays; mend that and run init again, it never overwrites",
        ) from None


def _read(path: Path) -> str:
    """The text of a file, empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace") if os.path.isfile(path) else ""
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}", "nothing was written") from None


def _quoted(text: str) -> str:
    """`text` as a string of TOML, which has no halves of a character beyond 65535."""
    return json.dumps(text, ensure_ascii=False)


def _environment(root: Path) -> str:
    """The environment that a configuration which is there already would take, or the only one it has."""
    new = Workflow().environment
    try:
        document = tomllib.loads(_read(root / CONFIG))
        if not document:
            document = tomllib.loads(_read(root / "pyproject.toml"))["tool"]["opsgate"]
        environments = list(document.get("environments", {}))
        name = document.get("default_environment")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return new
    if not name:
        name = new if new in environments or len(environments) != 1 else environments[0]
    return name if isinstance(name, str) and re.fullmatch(_NAME, name, re.ASCII) else new


def _branch(root: Path) -> str:
    """The branch that releases come from: the remote's own, else master if that is checked out, else main."""
    git = _git_directory(root)
    named = re.fullmatch(
        r"ref: refs/remotes/origin/([A-Za-z0-9][A-Za-z0-9._/-]{0,99})\s*",
        _glance(git / "refs/remotes/origin/HEAD"),
    )
    if named:
        return named[1]
    # A repository that was not cloned does not know the branch of its remote.
    return "master" if _glance(git / "HEAD").strip() == "ref: refs/heads/master" else "main"


def _git_directory(root: Path) -> Path:
    """Where git keeps the references: a work tree or a submodule has a file that leads there."""
    path = root / ".git"
    linked = re.fullmatch(r"gitdir: (.+)\n?", _glance(path))
    if linked:
        path = root / linked[1]
    return path / (_glance(path / "commondir").strip() or ".")


def _glance(path: Path) -> str:
    """The text of a file of git's, empty where it has none."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _template(name: str) -> str:
    return (files("opsgate.stages.init") / "templates" / name).read_text(encoding="utf-8")
