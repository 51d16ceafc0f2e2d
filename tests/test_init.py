"""What init writes: read by the real settings, gated by the real command, audited by the real tools."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from opsgate import __version__
from opsgate.errors import ConfigurationError
from opsgate.settings import Flags, load
from opsgate.stages.init import composefile, init
from tests.live import servers
from tests.workflow.ours import OURS, PATH

TOOLS = Path(sys.executable).parent
TWO_SERVICES = """
services:
  web:
    image: nginx:1.29
    ports: ["{web}:80"]
  api:
    build: ./api
    image: example/api
    ports:
      - "127.0.0.1:{api}:8000"   # behind the proxy
    healthcheck:
      test: ["CMD", "curl", "-fsS", "http://localhost:8000/healthz"]
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / ".git").mkdir()
    return tmp_path


def opsgate(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "opsgate", *args],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def everything(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): path.read_text(encoding="utf-8")
        for path in root.rglob("*")
        if path.is_file()
    }


def found(text: str) -> list[tuple[str, list[tuple[int, int, str]]]]:
    return [
        (service.name, [(port.published, port.inside, port.path) for port in service.ports])
        for service in composefile.services(text.encode(), {})
    ]


def proposed(repository: Path, text: str) -> list[str | None]:
    """The URLs that init proposes for this compose file."""
    (repository / "compose.yaml").write_text(text, encoding="utf-8")
    init.run(repository)
    return [target.url for target in load(Flags(), {}, repository).targets]


# --- in a repository ------------------------------------------------------------------------------


def test_two_services_give_a_gate_that_works_as_it_is(repository: Path) -> None:
    with (
        servers.Server(servers.by_path(index=servers.response())) as web,
        servers.Server(servers.by_path(healthz=servers.response())) as api,
    ):
        text = TWO_SERVICES.format(web=web.port, api=api.port)
        (repository / "compose.yaml").write_text(text, encoding="utf-8")
        done = opsgate("init", cwd=repository)
        assert (done.returncode, done.stderr) == (0, "")
        gate = opsgate("gate", "--deadline", "10s", "--soak", "200ms", cwd=repository)
        assert gate.returncode == 0, gate.stderr
        assert "passed (all_probes_healthy)" in gate.stdout
        web.stop()
        assert opsgate("gate", "--deadline", "1s", "--soak", "0", cwd=repository).returncode == 1
    targets = load(Flags(), {}, repository).targets
    assert [(target.name, target.url) for target in targets] == [
        ("web", f"http://127.0.0.1:{web.port}/"),
        ("api", f"http://127.0.0.1:{api.port}/healthz"),
    ]


def test_an_empty_repository_gets_files_that_say_what_is_missing(repository: Path) -> None:
    lines = init.run(repository)
    settings = load(Flags(), {}, repository)
    assert (settings.environment, settings.targets, settings.warnings) == ("production", (), ())
    assert any("NOT VALIDATED" in line for line in lines)
    assert set(everything(repository)) == {"opsgate.toml", init.WORKFLOW, ".gitignore"}


def test_every_line_that_is_commented_out_can_be_used(repository: Path) -> None:
    """Taken one by one, as a person would: each is a setting that the file may have."""
    text = init.plan(repository, None)[0].text
    options = 0
    table = ""
    for line in text.splitlines():
        bare = line.removeprefix("# ")
        if heading := re.match(r"\[[\w.]+\]", bare):
            table = heading[0]
        elif line.startswith("# ") and re.match(r"\w+ = ", bare):
            options += 1
            extra = 'deploy = "true"\n' if '"redeploy"' in line else ""
            (repository / "opsgate.toml").write_text(f"{table}\n{extra}{bare}\n", encoding="utf-8")
            load(Flags(env="production"), {}, repository)
    assert options > 10


def test_nothing_is_ever_overwritten(repository: Path) -> None:
    init.run(repository)
    for path in everything(repository):
        (repository / path).write_text("# mine\n/artifacts/\n", encoding="utf-8")
    before = everything(repository)
    lines = init.run(repository)
    assert [line.split()[0] for line in lines[:3]] == ["kept", "kept", "kept"]
    assert everything(repository) == before


def test_a_link_to_nowhere_is_not_written_through(repository: Path) -> None:
    outside = repository / "outside"
    (repository / "opsgate.toml").symlink_to(outside)
    init.run(repository)
    assert not outside.exists()


def test_a_dry_run_shows_and_writes_nothing(repository: Path) -> None:
    lines = init.run(repository, dry_run=True)
    assert everything(repository) == {}
    assert [line for line in lines if line.startswith("would")] == [
        "would write opsgate.toml",
        f"would write {init.WORKFLOW}",
        "would append .gitignore",
    ]
    assert "  | [environments.production]" in lines


@pytest.mark.parametrize("before", ["", "*.pyc", "*.pyc\n", "*.pyc\r\n"])
def test_gitignore_gains_a_line(repository: Path, before: str) -> None:
    (repository / ".gitignore").write_text(before, encoding="utf-8", newline="")
    init.run(repository)
    lines = (repository / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert lines == [*before.split(), "# Evidence of rollouts", "/artifacts/rollout/"]


@pytest.mark.parametrize("line", ["artifacts/", "/artifacts/rollout", "artifacts/rollout/", "artifacts"])
def test_gitignore_that_has_it_stays(repository: Path, line: str) -> None:
    (repository / ".gitignore").write_text(f"{line}\n", encoding="utf-8")
    init.run(repository)
    assert (repository / ".gitignore").read_text(encoding="utf-8") == f"{line}\n"


def test_a_gitignore_that_git_does_not_follow_is_not_written_through(repository: Path) -> None:
    (repository / ".gitignore").symlink_to(repository / "outside")
    assert any(line.startswith("kept     .gitignore: it is a link") for line in init.run(repository))
    assert not (repository / "outside").exists()


def test_what_cannot_be_read_is_said(repository: Path) -> None:
    (repository / "pyproject.toml").symlink_to("/proc/self/mem")
    done = opsgate("init", cwd=repository)
    assert done.returncode == 2
    assert done.stderr.startswith(f"opsgate: {repository}/pyproject.toml cannot be read: ")
    assert sorted(path.name for path in repository.iterdir()) == [".git", "pyproject.toml"]


def test_configuration_in_pyproject_counts(repository: Path) -> None:
    (repository / "pyproject.toml").write_text("[tool.opsgate.gate]\nsoak = 1\n", encoding="utf-8")
    lines = init.run(repository)
    assert "opsgate.toml" not in everything(repository)
    assert [line for line in lines if line.startswith("  1.")] == [
        "  1. check the URLs in pyproject.toml: without any, every gate says NOT VALIDATED"
    ]


def test_what_to_commit_is_what_was_written(repository: Path) -> None:
    (repository / ".gitignore").write_text("artifacts/\n", encoding="utf-8")
    assert f"  4. commit opsgate.toml and {init.WORKFLOW}" in init.run(repository)
    again = init.run(repository)
    assert not any("commit" in line for line in again)
    assert "  1. check the URLs in opsgate.toml: without any, every gate says NOT VALIDATED" in again


def test_it_writes_at_the_root_of_the_repository(repository: Path) -> None:
    below = repository / "services/web"
    below.mkdir(parents=True)
    lines = init.run(below)
    assert lines[0] == f"in {repository}, the root of the repository"
    assert (repository / "opsgate.toml").is_file()
    assert list(below.iterdir()) == []


def test_what_cannot_be_written_is_said(repository: Path) -> None:
    (repository / ".github").write_text("a file", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"publish-images\.yml cannot be written"):
        init.run(repository)
    done = opsgate("init", cwd=repository)
    assert done.returncode == 2
    assert "never overwrites" in done.stderr


# --- compose files --------------------------------------------------------------------------------


def test_ports_in_every_usual_form() -> None:
    text = """
    services:
      short:
        ports:
        - "8080:80"
        - 8443:443/tcp
        - 53:53/udp
        - "9000"
        - "${PORT:-8081}:80"
        - "${PORT}:81"
        - "[::1]:8082:82"
        - 8083-8085:83-85
      long:
        ports:
          - target: 80
            published: "8090"
            protocol: tcp
          - {target: 1, published: 2}
      flow:
        ports: ["127.0.0.1:8100:80", '8101:81']
      none: {}
    """.replace("\n    ", "\n")
    assert found(text) == [
        ("short", [(8080, 80, "/"), (8443, 443, "/"), (8081, 80, "/"), (8082, 82, "/"), (8083, 83, "/")]),
        ("long", [(8090, 80, "/"), (2, 1, "/")]),
        ("flow", [(8100, 80, "/"), (8101, 81, "/")]),
        ("none", []),
    ]


@pytest.mark.parametrize(
    ("ports", "urls"),
    [
        (
            "['192.168.1.5:8080:80', '[::1]:8081:81', '0.0.0.0:8082:82']",
            ["192.168.1.5:8080", "[::1]:8081", "8082"],
        ),
        (
            "['${BIND:-10.0.0.1}:${PORT:-8080}:80', '${PORT:?unset}:81', '${A:-${B-83}}:1']",
            ["10.0.0.1:8080", "83"],
        ),
        ("[{target: 80, published: 8080}, {target: 53, published: 53, protocol: udp}]", ["8080"]),
        ("[\n      '8080:80',\n      8081:81\n    ]", ["8080", "8081"]),
        ("\n    - target: 80\n      published: '8080-8085'\n      host_ip: 10.0.0.1", ["10.0.0.1:8080"]),
        ("\n    - published: ${PORT:-8080}\n      target: 80\n    - 8081:81 # both", ["8080", "8081"]),
        ("\n    - name: dns\n      target: 53\n      published: 5353\n      protocol: udp", []),
        ("['8080:80/sctp', '8081:80/tcp']", ["8081"]),
        ("['999.1.1.1:8080:80', ':::8081:81']", ["8080", "8081"]),
        ("['0:80', '99999:80', '8080:70000']", []),
        ("['8080:80']\n    profiles: [debug]", []),
    ],
)
def test_ports_are_asked_where_they_are_bound(repository: Path, ports: str, urls: list[str]) -> None:
    text = f"services:\n  web:\n    image: nginx\n    ports: {ports}\n"
    (repository / "compose.yaml").write_text(text, encoding="utf-8-sig", newline="\r\n")
    init.run(repository)
    expected = [f"http://{url if ':' in url else f'127.0.0.1:{url}'}/" for url in urls]
    assert [target.url for target in load(Flags(), {}, repository).targets] == expected


@pytest.mark.parametrize(
    ("asks", "url"),
    [
        ("curl -k https://localhost:9000/up", "https://127.0.0.1:8080/up"),
        ("wget -q http://[::1]:9000/up", "http://127.0.0.1:8080/up"),
        ("curl http://localhost:9000/$${CONTEXT}/up", "http://127.0.0.1:8080/"),
        ("curl http://localhost:9000/\\x<{y}>", "http://127.0.0.1:8080/"),
    ],
)
def test_only_what_the_health_check_really_asks_is_taken(repository: Path, asks: str, url: str) -> None:
    text = f"services:\n  web:\n    ports: ['8080:9000']\n    healthcheck:\n      test: {asks}\n"
    assert proposed(repository, text) == [url]


def test_ports_come_from_the_file_of_variables_beside_it(repository: Path) -> None:
    text = """services:
  web:
    image: example/web:$TAG
    ports: ["${WEB_PORT}:$INNER_PORT", "${API_PORT:-1}:81", "${REPORT}:82", "$${WEB_PORT}:83", "${PIN}:84"]
    healthcheck:
      test: curl http://localhost:${INNER_PORT}/up
  built:
    build: .
    image: r.example/built:${OPSGATE_TAG:-dev}
"""
    (repository / "deploy").mkdir()
    (repository / "deploy/compose.yml").write_text(text, encoding="utf-8")
    ports = "# ports\nWEB_PORT=8080\nexport API_PORT = '8081'\nINNER_PORT=3000\r\n"
    variables = f"{ports}OPSGATE_TAG=7\nPIN=24680\nREPORT=s3cret\n"
    (repository / "deploy/.env").write_text(variables, encoding="utf-8", newline="")
    init.run(repository)
    settings = load(Flags(), {}, repository)
    assert [target.url for target in settings.targets] == [
        "http://127.0.0.1:8080/up",
        "http://127.0.0.1:8081/",
    ]
    assert settings.publish.services == ("built",)
    assert not re.search("24680|s3cret", (repository / "opsgate.toml").read_text(encoding="utf-8"))


def test_any_name_of_a_directory_is_a_string_of_toml(repository: Path) -> None:
    path = repository / "\N{ROCKET}/compose.yaml"
    path.parent.mkdir()
    path.write_text("services:\n  a:\n    build: .\n    image: r.example/a:$OPSGATE_TAG\n", encoding="utf-8")
    init.run(repository)
    assert load(Flags(), {}, repository).publish.compose_files == ("\N{ROCKET}/compose.yaml",)


def test_the_health_check_tells_the_path() -> None:
    text = """
services:
  app:
    ports: ["8080:3000", "8081:80", "8082:90"]
    healthcheck:
      test: curl -f http://localhost:3000/api/health?full=1 || wget -q http://127.0.0.1:90
      interval: 5s
"""
    assert found(text) == [("app", [(8080, 3000, "/api/health?full=1"), (8081, 80, "/"), (8082, 90, "/")])]


def test_a_file_is_read_as_yaml_is() -> None:
    text = """
x-common: &common
  ports: ["8080:80"]
services:
  merged: {<<: *common, image: nginx}
  flow: {build: ., ports: [5000:50, 1_0:10]}
  tagged:
    ports: !override
      - 8081:81
    volumes: !reset null
"""
    assert found(text) == [
        ("merged", [(8080, 80, "/")]),
        ("flow", [(5000, 50, "/")]),
        ("tagged", [(8081, 81, "/")]),
    ]


def test_aliases_of_aliases_cost_nothing() -> None:
    lines = [
        "a0: &a0 {ports: ['8080:80']}",
        *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)),
    ]
    assert found("\n".join([*lines, "services: {web: *a0, bomb: {ports: *a29}}"])) == [
        ("web", [(8080, 80, "/")]),
        ("bomb", []),
    ]


def test_a_database_is_only_connected_to(repository: Path) -> None:
    text = "services:\n  db:\n    image: postgres\n    ports: ['15432:5432']\n"
    assert proposed(repository, text) == ["tcp://127.0.0.1:15432"]


def test_a_port_of_tls_is_asked_over_tls(repository: Path) -> None:
    text = "services:\n  web:\n    image: nginx\n    ports: ['80:80', '8443:443', '9443:8443']\n"
    assert proposed(repository, text) == [
        "http://127.0.0.1:80/",
        "https://127.0.0.1:8443/",
        "https://127.0.0.1:9443/",
    ]


@pytest.mark.parametrize(
    ("image", "tagged"),
    [
        ("ghcr.io/me/web:${OPSGATE_TAG}", True),
        ('"ghcr.io/me/web:${OPSGATE_TAG:-dev}"', True),
        ("${R:-localhost:5000}/web:$OPSGATE_TAG", True),
        ("ghcr.io/me/web:latest", False),
        ("ghcr.io/me/web", False),
        ("ghcr.io/me/web:${OPSGATE_TAGS}", False),
    ],
)
def test_publish_is_proposed_once_it_can_work(repository: Path, image: str, tagged: bool) -> None:
    text = f"services:\n  web:\n    build: .\n    image: {image}\n"
    (repository / "compose.yaml").write_text(text, encoding="utf-8")
    init.run(repository)
    document = tomllib.loads((repository / "opsgate.toml").read_text(encoding="utf-8"))
    expected = {"compose_files": ["compose.yaml"], "services": ["web"]}
    assert document.get("publish") == (expected if tagged else None)


def test_the_compose_file_nearest_to_the_root_is_taken(repository: Path) -> None:
    for place in (
        "deploy/compose.yml",
        "a/docker-compose.yml",
        "node_modules/x/compose.yaml",
        "a/b/c/compose.yaml",
    ):
        path = repository / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("services: {}\n", encoding="utf-8")
    chosen = composefile.find(repository)
    assert chosen is not None
    assert (chosen.path, chosen.others) == ("deploy/compose.yml", ("a/docker-compose.yml",))
    assert "  Not looked at: a/docker-compose.yml" in init.run(repository)


@pytest.mark.usefixtures("no_garbage")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "services:",
        "services:\n",
        "services: {web: {ports: '1:1', healthcheck: [a]}, [b]: 1, ? {c: d} : e}",
        "services: {web: ",
        "services: &all {web: *all}",
        "services: {!!int 5: {ports: [1]}, !!binary aGk=: {ports: ['1']}}",
        "services: {web: {ports: [!!bool x, !!timestamp y], image: !!null x}, !x [a]: 1}",
        "services: {web: {ports: [[1:1], {published: {a: b}, target: [1]}], healthcheck: {test: {a: b}}}}",
        "[" * 100_000,
        "- a\n- b\n",
        "\0\xff",
        "services:\n - x\n",
        ":\n:",
    ],
)
def test_odd_files_are_survived(repository: Path, text: str) -> None:
    (repository / "compose.yaml").write_bytes(text.encode("latin-1"))
    lines = init.run(repository)
    assert any("no published port was found in compose.yaml" in line for line in lines)
    assert load(Flags(), {}, repository).targets == ()


def test_names_cannot_break_out_of_the_file(repository: Path) -> None:
    (repository / 'x"]\nurls = ["http').mkdir()
    (repository / 'x"]\nurls = ["http/compose.yaml').write_text(
        "services:\n  a:\n    ports: ['1:1']\n", encoding="utf-8"
    )
    init.run(repository)
    assert load(Flags(), {}, repository).targets == ()


# --- the workflow ---------------------------------------------------------------------------------


def test_the_workflow_of_this_repository_is_what_init_writes() -> None:
    assert PATH.read_text(encoding="utf-8") == OURS.render(), f"run: python {Path('tests/workflow/ours.py')}"


def test_the_workflow_installs_this_version_and_runs_opsgate(repository: Path) -> None:
    init.run(repository)
    text = (repository / init.WORKFLOW).read_text(encoding="utf-8")
    assert f"run: python -m pip install opsgate=={__version__}\n" in text
    for task in ("publish", "deploy", "gate"):
        assert f"run: exec opsgate {task}\n" in text
    assert not re.search(r"@[a-z]+@", text)
    assert "mission" not in text.lower().replace("permission", "")


def test_no_secret_stands_in_a_command() -> None:
    for line in OURS.render().splitlines():
        if "${{" in line and "secrets." in line:
            assert re.match(r"\s+[A-Za-z_]+: \$\{\{", line), line
        if re.match(r"\s+(- )?run:", line):
            assert "${{" not in line


@pytest.mark.parametrize(
    ("head", "branch"),
    [
        ("ref: refs/remotes/origin/trunk\n", "trunk"),
        ("ref: refs/remotes/origin/release/2.x\n", "release/2.x"),
        ("ref: refs/remotes/origin/a'}} #\n", "main"),
        (None, "main"),
    ],
)
def test_releases_come_from_the_branch_that_the_remote_names(
    repository: Path, head: str | None, branch: str
) -> None:
    if head is not None:
        (repository / ".git/refs/remotes/origin").mkdir(parents=True)
        (repository / ".git/refs/remotes/origin/HEAD").write_text(head, encoding="utf-8")
    init.run(repository)
    text = (repository / init.WORKFLOW).read_text(encoding="utf-8")
    assert f"branches: [{branch}]" in text
    assert f"github.ref == 'refs/heads/{branch}'" in text


def git(directory: Path, *args: str) -> None:
    own = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *own, *args], cwd=directory, check=True, capture_output=True)


def test_a_work_tree_of_a_clone_knows_the_remotes_branch(tmp_path: Path) -> None:
    upstream, clone, tree = (tmp_path / name for name in ("upstream", "clone", "tree"))
    upstream.mkdir()
    git(upstream, "init", "-q", "-b", "trunk")
    git(upstream, "commit", "-q", "--allow-empty", "-m", "x")
    git(tmp_path, "clone", "-q", str(upstream), str(clone))
    git(clone, "worktree", "add", "-q", "-b", "topic", str(tree))
    init.run(tree)
    assert "branches: [trunk]" in (tree / init.WORKFLOW).read_text(encoding="utf-8")


@pytest.mark.parametrize(("head", "branch"), [("master", "master"), ("topic", "main"), ("main", "main")])
def test_a_repository_without_a_clones_knowledge(tmp_path: Path, head: str, branch: str) -> None:
    git(tmp_path, "init", "-q", "-b", head)
    init.run(tmp_path)
    assert f"branches: [{branch}]" in (tmp_path / init.WORKFLOW).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("step", "kept"),
    [
        ("run: exec opsgate gate", True),
        ("run: ./inv test && invoke gate", True),
        ("uses: octo/opsgate@0123456789abcdef0123456789abcdef01234567 # v1.0.0", True),
        ("run: echo opsgates gates", False),
    ],
)
def test_one_workflow_rolls_out(repository: Path, step: str, *, kept: bool) -> None:
    """A workflow of ours under another name is no reason to write a second one that does the same."""
    path = repository / ".github/workflows/release.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(f"jobs:\n  a:\n    steps:\n      - {step}\n", encoding="utf-8")
    lines = init.run(repository)
    assert ("kept     .github/workflows/release.yaml: it runs the gate already" in lines) == kept
    assert (repository / init.WORKFLOW).exists() != kept


@pytest.mark.parametrize(
    ("image", "registry"),
    [
        ("ghcr.io/me/web:${OPSGATE_TAG:-dev}", "vars.REGISTRY || 'ghcr.io'"),
        ("${REGISTRY:-ghcr.io}/me/web:$OPSGATE_TAG", "vars.REGISTRY || 'ghcr.io'"),
        ("registry.example/me/web:$OPSGATE_TAG", "vars.REGISTRY"),
        ("me/web:$OPSGATE_TAG", "vars.REGISTRY"),
    ],
)
def test_githubs_own_registry_is_logged_in_to(repository: Path, image: str, registry: str) -> None:
    text = f"services:\n  web:\n    build: .\n    image: {image}\n  db:\n    image: postgres\n"
    (repository / "compose.yaml").write_text(text, encoding="utf-8")
    init.run(repository)
    assert f"REGISTRY: ${{{{ {registry} }}}}\n" in (repository / init.WORKFLOW).read_text(encoding="utf-8")


@pytest.mark.parametrize("branch", ["1.10", "2024", "on", "null"])
def test_a_branch_whose_name_is_no_text_in_yaml_is_quoted(branch: str) -> None:
    assert f'branches: ["{branch}"]' in init.Workflow(branch=branch).render()


@pytest.mark.parametrize(
    ("name", "text", "environment"),
    [
        ("opsgate.toml", 'default_environment = "eu"\n[environments.eu]\n[environments.us]\n', "eu"),
        ("opsgate.toml", "[environments.staging]\n", "staging"),
        ("opsgate.toml", "[environments.a]\n[environments.production]\n", "production"),
        ("opsgate.toml", "[gate]\nsoak = 1\n", "production"),
        ("pyproject.toml", "[tool.opsgate.environments.staging]\n", "staging"),
        ("opsgate.toml", 'default_environment = "\'}} "', "production"),
        ("opsgate.toml", "environments = 1", "production"),
        ("opsgate.toml", "x = [", "production"),
    ],
)
def test_the_workflow_rolls_out_to_an_environment_that_is_there(
    repository: Path, name: str, text: str, environment: str
) -> None:
    (repository / name).write_text(text, encoding="utf-8")
    init.run(repository)
    workflow = (repository / init.WORKFLOW).read_text(encoding="utf-8")
    assert workflow.count(f"${{{{ inputs.environment || vars.OPSGATE_ENV || '{environment}' }}}}") == 3


def test_the_workflow_passes_every_audit(repository: Path) -> None:
    init.run(repository)
    path = str(repository / init.WORKFLOW)
    schema = [f"{TOOLS}/check-jsonschema", "--builtin-schema"]
    for command in (
        [f"{TOOLS}/actionlint", f"-shellcheck={TOOLS}/shellcheck", path],
        [f"{TOOLS}/zizmor", "--offline", "--persona=auditor", "--quiet", path],
        [*schema, "vendor.github-workflows", path],
        [*schema, "custom.github-workflows-require-timeout", path],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=repository)
        assert done.returncode == 0, done.stdout + done.stderr
