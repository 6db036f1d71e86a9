"""What is installed is what is needed, and no more; `nox -s package` has it in an environment with nothing else."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAME = f"kerasbn-{PROJECT['version']}"
FILES = {
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "kerasbn").rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
}
# Such tools as are installed beside Python, and then those of the path.
PATH = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]])
ELSEWHERE = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


def run(command, *arguments, path=PATH, **options):
    environment = {**ELSEWHERE, "PATH": path}
    done = subprocess.run(
        [shutil.which(command, path=path), *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist, and the wheel made from it; of a copy, as setuptools writes beside what it reads."""
    source, folder = tmp_path_factory.mktemp("source") / "kerasbn", tmp_path_factory.mktemp("dist")
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "docs", "node_modules", "*.egg-info"))
    run("python", "-m", "build", "--no-isolation", "--outdir", folder, source)
    return folder


def test_the_sdist_has_what_the_wheel_is_made_from(built):
    with tarfile.open(built / f"{NAME}.tar.gz") as archive:
        found = {member.name.removeprefix(f"{NAME}/") for member in archive if member.isfile()}
    made = {name for name in found if name.partition("/")[0] in ("PKG-INFO", "kerasbn.egg-info")}
    others = {"CHANGELOG.md", "LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.cfg", "setup.py"}
    assert found - made == FILES | others


def _wheel(built):
    return zipfile.ZipFile(built / f"{NAME}-py3-none-any.whl")


def test_the_wheel_has_the_package_alone(built):
    about = f"{NAME}.dist-info"
    made = ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt", "licenses/LICENSE")
    assert set(_wheel(built).namelist()) == FILES | {f"{about}/{name}" for name in made}


def test_what_it_says_of_itself(built):
    about = _wheel(built).read(f"{NAME}.dist-info/METADATA").decode()
    assert re.search(r"\]\((?!https:)", about) is None  # where the README is shown, local links lead nowhere
    assert "## In Python" in about
    assert f"\nSummary: {PROJECT['description']}\n" in about


@pytest.mark.parametrize(("page", "line"), [("CHANGELOG.md", "## [{}] - 20"), ("CITATION.cff", "version: {}")])
def test_the_version_is_the_same_everywhere(page, line):
    assert f"\n{line.format(PROJECT['version'])}" in (ROOT / page).read_text()


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """An environment that has the wheel, and sees what is installed here for all else; its folder of programs."""
    folder = tmp_path_factory.mktemp("installed")
    run("python", "-m", "venv", "--without-pip", folder)
    place = {"base": str(folder), "platbase": str(folder)}
    packages = pathlib.Path(sysconfig.get_path("purelib", "venv", vars=place))
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    programs = pathlib.Path(sysconfig.get_path("scripts", "venv", vars=place))
    run("python", "-m", "pip", "--python", folder, "install", "--quiet", "--no-deps", *built.glob("*.whl"))
    return programs


def test_the_command_is_on_the_path(installed, tmp_path):
    told = run("kerasbn-rewrite", "--version", path=str(installed), cwd=tmp_path)
    assert PROJECT["version"] in told
    assert "--dry-run" in run("kerasbn-rewrite", "--help", path=str(installed), cwd=tmp_path)


def test_readme(installed, tmp_path):
    """From the wheel: templates and all."""
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    program = "\n".join([*blocks, "print(kerasbn.__file__)", "kerasbn.plan(model).to_html()"])
    (tmp_path / "readme.py").write_text(program)
    told = run("python", "readme.py", path=str(installed), cwd=tmp_path)
    assert str(installed.parent) in told
    assert (tmp_path / "digits.onnx").exists()


def test_types_are_seen_from_outside(installed, tmp_path):
    """Names and options that are misspelt are errors; `nox -s types_outside` has pyright look too."""
    shutil.copy(ROOT / "tests" / "use_of_public_names.py", tmp_path)
    python = installed / "python"
    run("mypy", "--strict", "--python-executable", python, "use_of_public_names.py", cwd=tmp_path)
