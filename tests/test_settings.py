"""Settings: the file's rules, precedence, the choice of the environment, URLs, hooks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from opsgate import settings
from opsgate.errors import ConfigurationError
from opsgate.settings import Flags, Settings
from opsgate.verdict.targets import Expectation, Policy, Target

DATA = Path(__file__).parent / "data" / "settings"
BAD = sorted(path for path in DATA.glob("*.toml") if path.name != "contract.toml")


def write(directory: Path, text: str, name: str = "opsgate.toml") -> Path:
    path = directory / name
    path.write_text(text)
    return path


def load(cwd: Path, text: str | None = None, /, **flags: object) -> Settings:
    """Settings of a file with this text, with these flags; variables are the ones in `environ`."""
    environ = flags.pop("environ", {})
    needs = flags.pop("needs", None)
    if text is not None:
        write(cwd, text)
    return settings.load(Flags(**flags), environ, cwd, needs=needs)  # type: ignore[arg-type]


def error(cwd: Path, text: str | None = None, /, **flags: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(cwd, text, **flags)
    return caught.value.message


# --- the file -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_each_rule_has_its_message(path: Path, tmp_path: Path) -> None:
    text = path.read_text()
    expected = text.partition("\n")[0].removeprefix("# error: ")
    # The line with the message must not move those that a syntax error counts.
    body = text.partition("\n")[2]
    env = "local" if "[environments.local" in body and "default_environment" not in body else None
    assert error(tmp_path, body, env=env) == expected.replace("DIR", str(tmp_path))


def test_every_bad_file_names_its_error() -> None:
    assert len(BAD) > 90
    assert all(path.read_text().startswith("# error: opsgate.toml: ") for path in BAD)


def test_the_sample_of_the_contract_loads(tmp_path: Path) -> None:
    text = (DATA / "contract.toml").read_text()
    local = load(tmp_path, text)
    assert (local.environment, local.production) == ("local", False)
    assert [target.url for target in local.targets] == ["http://127.0.0.1:8000/healthz"]
    assert local.policy == Policy(deadline=120, soak=15)

    production = load(tmp_path, env="production")
    assert production.production is True
    assert production.policy.soak == 30
    assert production.timeouts == settings.Timeouts(rollback=240)
    assert production.redact_patterns == ("AKIA[0-9A-Z]{16}",)
    assert production.max_rollbacks_per_day == 3
    assert production.publish == settings.Publish(
        compose_files=("compose.yaml",), services=("backend", "frontend")
    )
    assert production.hooks == settings.Hooks(
        deploy='ssh prod deploy < "$OPSGATE_PINS"',
        rollback=("ssh prod rollback", "ssh -J backdoor prod rollback"),
        rollback_check="ssh prod true",
        incident="scripts/page-on-call",
    )
    assert [target.url for target in production.control] == ["https://registry.example.com/v2/"]
    assert production.targets == (
        Target(name="https://app.example.com/healthz", url="https://app.example.com/healthz"),
        Target(
            name="api",
            url="https://app.example.com/version",
            expect=Expectation(
                json=(("status", "ok"), ("checks.0.up", True)),
                revision="json:version",
                max_latency=0.8,
                tls_days=14,
            ),
        ),
        Target(name="inside", command="ssh prod curl -fsS localhost:8000/readyz"),
        Target(name="tcp://db.example.com:5432", url="tcp://db.example.com:5432", required=False),
    )


def test_every_expectation_arrives(tmp_path: Path) -> None:
    write(tmp_path, "", "ca.pem")
    target = load(
        tmp_path,
        """
        [[environments.default.urls]]
        url = "https://a.example/"
        status = [200, "300-399"]
        body = "ok"
        body_regex = "o+"
        headers = { X-A = "1" }
        request_headers = { X-B = "2" }
        revision = "header:X-Rev"
        method = "GET"
        ca_file = "ca.pem"
        """,
    ).targets[0]
    assert target == Target(
        name="https://a.example/",
        url="https://a.example/",
        request_headers=(("X-B", "2"),),
        ca_file=str(tmp_path / "ca.pem"),
        expect=Expectation(
            status=((200, 200), (300, 399)),
            body="ok",
            body_regex="o+",
            headers=(("X-A", "1"),),
            revision="header:X-Rev",
        ),
    )


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    message = error(tmp_path, "[gate]\nsoak = true\nflaps = -1\n", deadline="soon")
    assert message.splitlines() == [
        "opsgate.toml: gate.soak: true is not a duration",
        "opsgate.toml: gate.flaps: -1 is not between 0 and 1000000",
        '--deadline: "soon" is not a duration',
    ]


def test_mistakes_in_an_environment_not_selected_are_told(tmp_path: Path) -> None:
    text = "[environments.a]\nproduction = false\n[environments.b]\nproduction = 1\n"
    assert error(tmp_path, text, env="a").startswith("opsgate.toml: environments.b.production: ")


@pytest.mark.usefixtures("no_garbage")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "opsgate.toml: is not UTF-8 text"),
        (b"#" * (1 << 20) + b"\n", "opsgate.toml: is larger than 1 MiB"),
        (b"a = " + b"[" * 5000, "opsgate.toml: is not valid TOML: nested too deep, or a number too long"),
        (b"a = " + b"1" * 5000, "opsgate.toml: is not valid TOML: nested too deep, or a number too long"),
    ],
    ids=["encoding", "size", "depth", "digits"],
)
def test_a_hostile_file_is_an_error_in_words(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "opsgate.toml").write_bytes(content)
    assert error(tmp_path) == message


# --- where the file is ----------------------------------------------------------------------------


def test_the_file_is_looked_for_up_to_the_repository_root(tmp_path: Path) -> None:
    inner = tmp_path / "repo" / "a" / "b"
    inner.mkdir(parents=True)
    write(tmp_path, "max_rollbacks_per_day = 9\n")
    (tmp_path / "repo" / ".git").mkdir()
    assert load(inner).config_file is None
    assert load(inner).directory == inner
    write(tmp_path / "repo", "max_rollbacks_per_day = 7\n")
    found = load(inner)
    assert (found.max_rollbacks_per_day, found.directory) == (7, tmp_path / "repo")
    assert found.evidence_dir == tmp_path / "repo" / "artifacts" / "rollout"
    write(inner, "max_rollbacks_per_day = 5\n")
    assert load(inner).max_rollbacks_per_day == 5


def test_without_a_repository_only_the_working_directory_counts(tmp_path: Path) -> None:
    inner = tmp_path / "a"
    inner.mkdir()
    write(tmp_path, "max_rollbacks_per_day = 9\n")
    assert load(inner).config_file is None


def test_pyproject_counts_where_there_is_no_file_of_our_own(tmp_path: Path) -> None:
    write(tmp_path, "[tool.opsgate.gate]\nsoak = '7s'\n", "pyproject.toml")
    found = load(tmp_path)
    assert found.policy.soak == 7
    assert found.origins["gate.soak"] == "pyproject.toml [tool.opsgate.gate]"
    write(tmp_path, "[tool.opsgate.gate]\nsook = '7s'\n", "pyproject.toml")
    assert error(tmp_path) == 'pyproject.toml: tool.opsgate.gate.sook: unknown key; did you mean "soak"?'
    write(tmp_path, "[gate]\nsoak = '8s'\n")
    assert load(tmp_path).policy.soak == 8


@pytest.mark.parametrize(
    ("text", "own", "shared"),
    [
        (
            "urls = 1\n",
            "Write it under [environments.NAME].",
            "Write it under [tool.opsgate.environments.NAME].",
        ),
        ("environments = 1\n", "Write [environments.NAME].", "Write [tool.opsgate.environments.NAME]."),
        (
            "[local]\nurls = 1\n",
            "If it is an environment, write [environments.local].",
            "If it is an environment, write [tool.opsgate.environments.local].",
        ),
        (
            "[environments.a]\nevidence_dir = 'x'\n",
            "Write it before the first [table].",
            "Write it under [tool.opsgate].",
        ),
        ("[timeout]\nrollback = '4m'\n", "", ""),
    ],
)
def test_a_hint_names_the_table_as_it_is_called_in_that_file(
    tmp_path: Path, text: str, own: str, shared: str
) -> None:
    write(tmp_path, "[tool.opsgate]\n" + text.replace("[", "[tool.opsgate."), "pyproject.toml")
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path)
    assert caught.value.hint == shared
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    assert caught.value.hint == own


@pytest.mark.parametrize("text", ["[project]\nname = 'x'\n", "[project]\nname = 'opsgate'\n", "not toml ["])
def test_a_pyproject_of_others_is_no_business_of_ours(tmp_path: Path, text: str) -> None:
    write(tmp_path, text, "pyproject.toml")
    assert load(tmp_path).config_file is None


def test_a_variable_names_another_file(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write(tmp_path, "nonsense = 1\n")
    write(other, "[gate]\nsoak = '9s'\n", "x.toml")
    assert load(tmp_path, environ={"OPSGATE_CONFIG": "other/../other/x.toml"}).directory == other
    found = load(tmp_path, environ={"OPSGATE_CONFIG": "other/x.toml"})
    assert (found.policy.soak, found.directory) == (9, other)
    assert found.origins["gate.soak"] == "other/x.toml [gate]"


def test_a_file_that_cannot_be_looked_at_is_not_taken_for_none(tmp_path: Path) -> None:
    (tmp_path / "opsgate.toml").symlink_to("opsgate.toml")
    assert error(tmp_path) == "opsgate.toml: cannot be looked at: Too many levels of symbolic links"


def test_a_named_file_must_be_one(tmp_path: Path) -> None:
    assert (
        error(tmp_path, environ={"OPSGATE_CONFIG": "no.toml"})
        == 'OPSGATE_CONFIG: "no.toml" does not exist, or cannot be reached'
    )
    assert "does not exist, or cannot be reached" in error(tmp_path, environ={"OPSGATE_CONFIG": "x" * 300})
    assert error(tmp_path, environ={"OPSGATE_CONFIG": "."}) == 'OPSGATE_CONFIG: "." is a directory'
    write(tmp_path, "[project]\nname = 'x'\n", "pyproject.toml")
    message = error(tmp_path, environ={"OPSGATE_CONFIG": "pyproject.toml"})
    assert message == "pyproject.toml: holds no [tool.opsgate] table"


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that fails to be read")
def test_a_file_that_cannot_be_read_is_an_error_in_words(tmp_path: Path) -> None:
    message = error(tmp_path, environ={"OPSGATE_CONFIG": "/proc/self/mem"})
    assert message == "/proc/self/mem: cannot be read: Input/output error"


# --- precedence -----------------------------------------------------------------------------------

GATE_KEYS = [
    ("deadline", ("5m", "4m", "3m", "2m"), (300, 240, 180, 120)),
    ("soak", ("5s", "4s", "3s", "2s"), (5, 4, 3, 2)),
    ("interval", ("5s", "4s", "3s", "2s"), (5, 4, 3, 2)),
    ("attempt_timeout", ("5s", "4s", "3s", "2s"), (5, 4, 3, 2)),
    ("successes", ("5", "4", "3", "2"), (5, 4, 3, 2)),
    ("flaps", ("5", "4", "3", "2"), (5, 4, 3, 2)),
]


@pytest.mark.parametrize(("key", "texts", "values"), GATE_KEYS, ids=[row[0] for row in GATE_KEYS])
def test_flag_then_variable_then_environment_then_top_then_default(
    tmp_path: Path, key: str, texts: tuple[str, ...], values: tuple[float, ...]
) -> None:
    flag, variable, own, top = texts
    if key in {"successes", "flaps"}:
        lines = (f"{key} = {own}", f"{key} = {top}")
    else:
        lines = (f'{key} = "{own}"', f'{key} = "{top}"')
    write(tmp_path, f"[gate]\n{lines[1]}\n[environments.a.gate]\n{lines[0]}\n[environments.b]\n")
    environ = {f"OPSGATE_{key.upper()}": variable}
    seen = [
        load(tmp_path, env="a", environ=environ, **{key: flag}),
        load(tmp_path, env="a", environ=environ),
        load(tmp_path, env="a"),
        load(tmp_path, env="b"),
    ]
    assert [getattr(found.policy, key) for found in seen] == list(values)
    assert [found.origins[f"gate.{key}"] for found in seen] == [
        f"flag --{key.replace('_', '-')}",
        f"OPSGATE_{key.upper()}",
        "opsgate.toml [environments.a.gate]",
        "opsgate.toml [gate]",
    ]
    default = load(tmp_path, "")
    assert getattr(default.policy, key) == getattr(Policy(), key)
    assert default.origins[f"gate.{key}"] == "default"


def test_sections_merge_key_by_key(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        """
        max_rollbacks_per_day = 5
        [publish]
        services = ["a"]
        command = "make"
        [timeouts]
        deploy = "1m"
        rollback = 50
        [redact]
        patterns = ["a+", "b+"]
        [environments.default]
        max_rollbacks_per_day = 0
        publish.services = ["b"]
        timeouts.rollback = "2m"
        redact.patterns = ["c+", "a+"]
        """,
    )
    assert found.max_rollbacks_per_day == 0
    assert (found.hooks.publish, found.publish.services) == ("make", ("b",))
    assert (found.timeouts.deploy, found.timeouts.rollback) == (60, 120)
    assert set(found.redact_patterns) == {"a+", "b+", "c+"}
    assert found.redactor.scrub("bbb ccc ddd") == "*** *** ddd"


def test_an_empty_variable_is_an_unset_one(tmp_path: Path) -> None:
    names = ["OPSGATE_SOAK", "OPSGATE_ENV", "OPSGATE_CONFIG", "OPSGATE_EVIDENCE_DIR", "OPSGATE_RUN_ID",
             "OPSGATE_REVISION", "OPSGATE_ROLLBACK", "RUNTIME_HEALTH_URLS", "RUNTIME_HEALTH_TOKEN",
             "RUNTIME_ROLLBACK_COMMAND", "RUNTIME_CONTROL_URLS"]  # fmt: skip
    text = '[environments.default]\nurls = ["http://a.example/"]\nrollback = "true"\n'
    assert load(tmp_path, text, environ=dict.fromkeys(names, "")).origins == load(tmp_path).origins
    assert load(tmp_path, environ={"RUNTIME_HEALTH_URLS": " ,\n"}).origins["urls"].startswith("opsgate.toml")


def test_an_empty_flag_is_a_mistake(tmp_path: Path) -> None:
    for flag in ("env", "soak", "revision", "evidence_dir", "successes"):
        assert error(tmp_path, **{flag: ""}).startswith(f"--{flag.replace('_', '-')}: ")
    assert error(tmp_path, url=("",)).startswith("--url: ")


def test_a_variable_that_a_flag_overrides_is_not_read(tmp_path: Path) -> None:
    assert load(tmp_path, soak="5s", environ={"OPSGATE_SOAK": "soon"}).policy.soak == 5
    assert error(tmp_path, environ={"OPSGATE_SOAK": "soon"}) == 'OPSGATE_SOAK: "soon" is not a duration'


def test_booleans(tmp_path: Path) -> None:
    found = load(tmp_path)
    assert (found.rollback, found.fail_on_skipped) == (True, False)
    environ = {"OPSGATE_ROLLBACK": "no", "OPSGATE_FAIL_ON_SKIPPED": "True"}
    found = load(tmp_path, environ=environ)
    assert (found.rollback, found.fail_on_skipped) == (False, True)
    assert load(tmp_path, environ=environ, rollback=True).rollback is True
    assert load(tmp_path, rollback=False).origins["rollback_allowed"] == "flag --no-rollback"
    assert load(tmp_path, fail_on_skipped=True).fail_on_skipped is True
    message = error(tmp_path, environ={"OPSGATE_ROLLBACK": "maybe"})
    assert message == 'OPSGATE_ROLLBACK: "maybe" is neither true nor false'


# --- the soak and the deadline --------------------------------------------------------------------


def test_the_soak_must_be_shorter_than_the_deadline(tmp_path: Path) -> None:
    assert error(tmp_path, soak="2m") == (
        "--soak: the soak, 2m (flag --soak), must be shorter than the deadline, 2m (default)"
    )
    assert error(tmp_path, deadline="15s") == (
        "--deadline: the soak, 15s (default), must be shorter than the deadline, 15s (flag --deadline)"
    )
    assert error(tmp_path, environ={"OPSGATE_SOAK": "1h"}).startswith(
        "OPSGATE_SOAK: the soak, 1h (OPSGATE_SOAK)"
    )
    assert load(tmp_path, soak="1m59.999s").policy.soak == pytest.approx(119.999)
    assert load(tmp_path, soak="0", deadline="1s").policy.soak == 0
    assert load(tmp_path, attempt_timeout="1h").policy.attempt_timeout == 3600


def test_a_policy_that_nothing_can_pass_is_a_warning(tmp_path: Path) -> None:
    found = load(tmp_path, soak="0", deadline="2s", interval="1s")
    assert found.warnings == ("gate: cannot pass: 3 successes 1s apart take longer than the deadline, 2s",)
    assert load(tmp_path, soak="0", deadline="2.001s", interval="1s").warnings == ()


# --- the environment ------------------------------------------------------------------------------


def test_the_environment_is_selected(tmp_path: Path) -> None:
    text = 'default_environment = "a"\n[environments.a]\n[environments.b]\n[environments.c]\n'
    assert load(tmp_path, text).environment == "a"
    assert load(tmp_path, environ={"OPSGATE_ENV": "b"}).environment == "b"
    found = load(tmp_path, env="c", environ={"OPSGATE_ENV": "b"})
    assert (found.environment, found.origins["environment"]) == ("c", "flag --env")
    assert load(tmp_path, "").environment == "default"


def test_an_undefined_environment_is_a_mistake(tmp_path: Path) -> None:
    text = "[environments.production]\n"
    assert error(tmp_path, text, env="prodution") == (
        '--env: "prodution" is an unknown environment; did you mean "production"?'
    )
    assert error(tmp_path, environ={"OPSGATE_ENV": "zz"}) == (
        'OPSGATE_ENV: "zz" is an unknown environment; valid here: production'
    )
    with pytest.raises(ConfigurationError, match=r"opsgate\.toml defines each as a table"):
        load(tmp_path, env="prodution")
    assert load(tmp_path, env="default").environment == "default"
    assert load(tmp_path, "[gate]\nsoak = 1\n", env="anything").environment == "anything"
    assert load(tmp_path / "nowhere", env="anything").environment == "anything"


def test_environments_without_a_selected_one_are_pointed_out(tmp_path: Path) -> None:
    found = load(tmp_path, "[environments.b]\n[environments.a]\n")
    assert found.warnings == ("opsgate.toml: no environment is selected; it defines a, b",)


@pytest.mark.parametrize("name", [".a", "a/b", "a b", "x" * 65, "é", "a\n"])
def test_an_environment_s_name_can_be_a_file_name(tmp_path: Path, name: str) -> None:
    assert "cannot be an environment's name" in error(tmp_path, env=name)


# --- evidence, run id, revision -------------------------------------------------------------------


def test_paths_start_at_the_file_s_directory(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    inner = tmp_path / "sub"
    inner.mkdir()
    write(tmp_path, 'evidence_dir = "ev"\n')
    assert load(inner).evidence_dir == tmp_path / "ev"
    assert load(inner, environ={"OPSGATE_EVIDENCE_DIR": "~/x"}).evidence_dir == tmp_path / "~" / "x"
    absolute = tmp_path / "abs"
    assert load(inner, evidence_dir=str(absolute)).evidence_dir == absolute


def test_run_ids(tmp_path: Path) -> None:
    actions = {"GITHUB_ACTIONS": "true", "GITHUB_RUN_ID": "123", "GITHUB_RUN_ATTEMPT": "2"}
    assert load(tmp_path).run_id is None
    assert load(tmp_path, environ=actions).run_id == "gh-123-2"
    assert load(tmp_path, env="prod", environ=actions).run_id == "gh-123-2-prod"
    assert load(tmp_path, environ=actions | {"OPSGATE_RUN_ID": "mine"}).run_id == "mine"
    assert load(tmp_path, environ=actions | {"GITHUB_ACTIONS": ""}).run_id is None
    assert load(tmp_path, environ=actions | {"GITHUB_RUN_ID": "../x"}).run_id is None
    ids = {load(tmp_path, env="x" * 63 + end, environ=actions).run_id for end in "ab"}
    assert len(ids) == 2
    assert all(found is not None and len(found) == 64 for found in ids)
    for bad in (".x", "a/b", "x" * 65, ".."):
        assert error(tmp_path, environ={"OPSGATE_RUN_ID": bad}).startswith("OPSGATE_RUN_ID: ")


def test_the_revision_comes_from_flag_or_variable(tmp_path: Path) -> None:
    environ = {"OPSGATE_REVISION": "v41", "GITHUB_SHA": "c0ffee"}
    assert load(tmp_path, environ=environ).revision == "v41"
    assert load(tmp_path, environ=environ, revision="v42").revision == "v42"
    assert load(tmp_path, environ={"GITHUB_SHA": "c0ffee"}).revision is None
    assert error(tmp_path, revision="v 42") == '--revision: "v 42" holds a space'


def test_importing_settings_stays_cheap() -> None:
    heavy = {
        "requests",
        "invoke",
        "rich",
        "tomllib",
        "difflib",
        "idna",
        "dataclasses",
        "subprocess",
    }
    code = "import sys; before = set(sys.modules); import opsgate.settings; "
    code += f"print({heavy!r} & (set(sys.modules) - before))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"
