"""The Dockerfile and the compose file, as far as they can be held against the project without Docker."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
from postgres_server import PostgresServer

from contest.cli import cli

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "docs" / "deploy"
SECRETS = {"POSTGRES_PASSWORD": "p" * 20, "CONTEST_SECRET": "s" * 40, "DATA": "/data"}
yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: the compose file cannot be read")


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's lines as (instruction, arguments), continued lines joined."""
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    lines = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^#.*\n", "", text)).splitlines()
    pairs = (line.split(maxsplit=1) for line in lines if line.strip())
    return [(instruction, arguments) for instruction, arguments in pairs]


def the(instruction: str) -> str:
    """The arguments of the last instruction of a kind: the one that counts."""
    return [arguments for name, arguments in instructions() if name == instruction][-1]


def compose() -> dict[str, Any]:
    """The compose file with its variables filled in, as docker compose does."""

    def fill(match: re.Match[str]) -> str:
        name, operator, rest = match[1], match[2], match[3]
        if name in SECRETS:
            return SECRETS[name]
        assert operator == ":-", f"{name} must be given: {rest}"
        return rest

    text = (DEPLOY / "compose.yaml").read_text("utf-8")
    found: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{(\w+)(:[-?])([^}]*)\}", fill, text))
    return found


def copied() -> list[str]:
    """What the build copies from the repository."""
    found = []
    for name, arguments in instructions():
        if name == "COPY" and "--from" not in arguments:
            found += arguments.split()[:-1]
    return found


def test_the_image_has_all_that_the_package_needs() -> None:
    for source in copied():
        assert (ROOT / source).exists(), source
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wanted = {*project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"], "pyproject.toml"}
    wanted |= {project["project"]["readme"], *project["project"]["license-files"]}
    assert wanted <= set(copied())
    extras = re.search(r'"\.\[([\w,]+)\]"', the("RUN") + " ".join(a for _, a in instructions()))
    assert extras is not None and set(extras[1].split(",")) == {"serve", "postgres"}
    assert set(extras[1].split(",")) <= set(project["project"]["optional-dependencies"])


def test_nobody_is_root_and_nothing_secret_is_in_the_image() -> None:
    assert the("USER") == "contest"
    assert the("STOPSIGNAL") == "SIGTERM"
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    assert not re.search(r"SECRET|PASSWORD|TOKEN", text)
    for folder in ("CONTEST_LEADERBOARD", "CONTEST_DATA"):
        assert folder in the("ENV")
    assert the("VOLUME") in the("ENV")


def check_command(words: list[str]) -> None:
    """Parse a command line by the commands themselves: an unknown option or a wrong value raises."""
    assert words[0] == "contest"
    name, command, rest = cli.resolve_command(click.Context(cli), words[1:])
    assert command is not None
    command.make_context(name, list(rest))


def test_every_command_line_is_one() -> None:
    check_command(json.loads(the("CMD")))
    services = compose()["services"]
    for service in ("web", "worker"):
        check_command(services[service]["command"])


def test_the_compose_file_fits_together() -> None:
    found = compose()
    services = found["services"]
    for name in ("web", "worker"):
        service = services[name]
        build = service["build"]
        context = (DEPLOY / build["context"]).resolve()
        assert context == ROOT and (context / build["dockerfile"]).is_file()
        assert set(service["depends_on"]) <= set(services)
        for volume in service["volumes"]:
            source, target = volume.split(":")[:2]
            assert source in found["volumes"] or source.startswith("/")
            assert target in the("ENV")
        url = service["environment"]["CONTEST_DATABASE"]
        database = services["database"]["environment"]
        assert url == (
            f"postgresql://{database['POSTGRES_USER']}:{database['POSTGRES_PASSWORD']}@database/{database['POSTGRES_DB']}"
        )
        assert len(service["environment"]["CONTEST_SECRET"]) >= 32
        # The service needs up to 20 s to stop; Docker must not kill it before.
        assert int(service["stop_grace_period"].removesuffix("s")) > 20
    assert "healthcheck" in services["database"] and services["worker"]["healthcheck"] == {"disable": True}
    assert services["web"]["ports"] == ["127.0.0.1:8000:8000"]  # the proxy in front is the only way in


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
def test_the_commands_run_in_a_clean_environment(tmp_path: Path) -> None:
    """What the image would do: install from what is copied, start web and worker, check health, stop by SIGTERM."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed: no clean environment can be made")
    source, home = tmp_path / "src", tmp_path / "opt"
    source.mkdir()
    for name in copied():
        origin = ROOT / name
        if origin.is_dir():
            shutil.copytree(origin, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(origin, source / name)
    subprocess.run([uv, "venv", "--python", sys.executable, str(home)], check=True, capture_output=True)
    command = [uv, "pip", "install", "--python", str(home / "bin/python"), f"{source}[serve,postgres]"]
    subprocess.run(command, check=True, capture_output=True, timeout=900)
    server = PostgresServer()
    server.start()
    port = free_port()
    environment = {
        "PATH": f"{home}/bin:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "CONTEST_LEADERBOARD": str(tmp_path / "board"),
        "CONTEST_DATABASE": server.new_database("contest"),
        "CONTEST_SECRET": "s" * 40,
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    }
    services = compose()["services"]
    web_words = [*services["web"]["command"], "--port", str(port)]
    written = [tmp_path / "web.log", tmp_path / "worker.log"]
    running = []
    for words, log in zip((web_words, services["worker"]["command"]), written, strict=True):
        with log.open("w") as stderr:
            running.append(subprocess.Popen(words, env=environment, cwd=tmp_path, stderr=stderr))
    try:
        check = [word.replace(":8000/", f":{port}/") for word in json.loads(the("HEALTHCHECK").partition("CMD ")[2])]
        deadline = time.monotonic() + 120
        while subprocess.run(check, env=environment, capture_output=True, check=False).returncode:
            assert time.monotonic() < deadline and running[0].poll() is None
            time.sleep(0.5)
        assert httpx.get(f"http://127.0.0.1:{port}/readyz").json() == {"status": "ready"}
        page = httpx.get(f"http://127.0.0.1:{port}/contests/lab")
        assert page.status_code == 200 and "strict-transport-security" in page.headers  # --tls
        assert httpx.get(f"http://127.0.0.1:{port}/static/vega.js").status_code == 200
        time.sleep(2)
        assert running[1].poll() is None
        for process in running:
            process.send_signal(signal.SIGTERM)
        # Once it is shut down (which "stopped" below says), uvicorn ends the process by the signal that it was sent.
        assert running[0].wait(timeout=25) in (0, -signal.SIGTERM)
        assert running[1].wait(timeout=25) == 0
        printed = written[0].read_text()
        assert "organiser's token" in printed and '"message": "stopped"' in printed
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.wait()
        server.stop()


def test_the_unit_of_systemd_starts_what_there_is() -> None:
    """Its command line is one of `contest serve`, its folders are those that the program reads."""
    from leaderboard.commands.user import serve

    lines = dict(
        line.split("=", 1) for line in (DEPLOY / "contest.service").read_text().splitlines() if "=" in line[:20]
    )
    program, command, *options = lines["ExecStart"].split()
    assert (program, command) == ("/opt/contest/bin/contest", "serve")
    serve.make_context("serve", options)
    assert {part.split("=")[0] for part in lines["Environment"].split()} == {"CONTEST_LEADERBOARD", "CONTEST_DATA"}
    assert f"/var/lib/{lines['StateDirectory']}" in lines["Environment"]
