"""What is tried in environments of its own; `nox -l` lists it.

The Pythons have to be on the path. What stands behind `--` goes to pytest: `nox -s lowest -- tests/graph`. A run leaves
its results in its environment, where `tools/tested_versions.py` finds them.
"""

import shutil
import tempfile
from pathlib import Path

import nox
from uv import find_uv_bin

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "uv"
nox.options.sessions = ["package", "types_outside"]
nox.options.error_on_external_run = True

ROOT = Path(__file__).parent
PYTHONS = ("3.11", "3.12", "3.13")

# What versions of Keras, TensorFlow and the formats touch first: a minute or two, where all take a quarter of an hour.
TOUCHED = (
    "tests/graph",
    "tests/loading/test_files.py",
    "tests/exporters/test_litert_file.py",
    "tests/exporters/test_saved_model.py",
    "tests/serializable/test_keras_suite.py",
    "tests/test_readme.py::test_python",
)


@nox.session(python=PYTHONS)
@nox.parametrize("tensorflow", ["2.20", "newest"])
@nox.parametrize("keras", ["3.14", "newest"])
def versions(session: nox.Session, keras: str, tensorflow: str) -> None:
    """Part of the tests on each version of Python, Keras and TensorFlow, all else being the newest."""
    session.install("-e", ".[dev]", _requirement("keras", keras), _requirement("tensorflow", tensorflow))
    _test(session, TOUCHED)


@nox.session(python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """All tests on the oldest packages that pyproject.toml admits."""
    session.install("--resolution", "lowest-direct", "-e", ".[dev]")
    _test(session, ("-n", "2"))


@nox.session(python=PYTHONS[0])
def torch(session: nox.Session) -> None:
    """All tests that do not need TensorFlow, under torch."""
    session.install("-c", "constraints.txt", "-e", ".[dev,torch]")
    _test(session, ("-n", "2"), KERAS_BACKEND="torch")


@nox.session(python=PYTHONS, venv_backend="venv")
def package(session: nox.Session) -> None:
    """The wheel, made from the sdist, in an environment with nothing else: requirements, command, README."""
    session.install("--quiet", *_wheel(session))
    session.run("pip", "check")
    session.run("kerasbn-rewrite", "--help", silent=True)
    session.install("--quiet", "pytest")
    # What is installed is imported, and not what is here.
    session.run("pytest", "--import-mode=importlib", "tests/test_readme.py")


@nox.session(python=PYTHONS[0])
def types_outside(session: nox.Session) -> None:
    """What mypy and pyright see of the wheel, where it is used."""
    session.install(*_wheel(session), "mypy", "pyright[nodejs]")
    # Elsewhere: pyright passes over folders whose names begin with a dot, such as nox's.
    with tempfile.TemporaryDirectory() as folder, session.chdir(folder):
        program = shutil.copy(ROOT / "tests" / "use_of_public_names.py", folder)
        session.run("mypy", "--strict", program)
        session.run("pyright", "--warnings", "--pythonpath", f"{session.bin}/python", program)


def _requirement(package: str, version: str) -> str:
    return package if version == "newest" else f"{package}=={version}.*"


def _test(session: nox.Session, arguments: tuple[str, ...], **environment: str) -> None:
    results = Path(session.virtualenv.location) / "results.xml"
    session.run("pytest", f"--junitxml={results}", *(session.posargs or arguments), env=environment)


def _wheel(session: nox.Session) -> list[str]:
    """The wheel, made from the sdist."""
    folder = Path(session.create_tmp()) / "dist"
    shutil.rmtree(folder, ignore_errors=True)
    session.run(find_uv_bin(), "build", "--quiet", "--out-dir", str(folder), external=True)
    return [str(each) for each in folder.glob("*.whl")]
