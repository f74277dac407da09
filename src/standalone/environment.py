"""Create the virtual environment: `python environment.py .venv requirements-dev.txt`.

Runs on a bare Python 3.11, so it uses the standard library only. Debian's Python comes
without the part that puts pip into a virtual environment; then pip is taken from the
system's own pip, or from Debian's package of it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Create the environment `arguments[0]` and install the list `arguments[1]` into it."""
    target, requirements = Path(arguments[0]).absolute(), Path(arguments[1]).absolute()
    python = target / "bin" / "python"
    print(f"setup: Python {sys.version.split()[0]}, packages into {target}", flush=True)
    try:
        if not _has_pip(python):
            shutil.rmtree(target, ignore_errors=True)
            _create(target)
        subprocess.run(
            [*_pip(python), "install", "--quiet", "--requirement", str(requirements)],
            check=True,
            env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        )
    except (subprocess.CalledProcessError, OSError) as error:
        print(f"setup: cannot prepare {target}: {error}", file=sys.stderr)
        return 1
    return 0


def _pip(python: Path) -> list[str]:
    return [str(python), "-m", "pip", "--no-input"]


def _has_pip(python: Path) -> bool:
    if not python.exists():
        return False
    return subprocess.run([*_pip(python), "--version"], capture_output=True).returncode == 0


def _create(target: Path) -> None:
    venv.create(target, with_pip=False, symlinks=True)
    python = target / "bin" / "python"
    bundled = [str(python), "-m", "ensurepip", "--default-pip"]
    if subprocess.run(bundled, capture_output=True).returncode == 0:
        return
    system = [sys.executable, "-m", "pip", "--no-input", "--python", str(python)]
    if subprocess.run([*system, "install", "--quiet", "pip"], capture_output=True).returncode == 0:
        return
    _install_debian_pip(python)


def _install_debian_pip(python: Path) -> None:
    """Unpack Debian's pip wheel, which needs no root, and let it install itself."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            subprocess.run(["apt-get", "download", "python3-pip-whl"], cwd=folder, check=True)
            package = next(Path(folder).glob("*.deb"))
            subprocess.run(["dpkg", "-x", package.name, "."], cwd=folder, check=True)
            wheel = next(Path(folder).rglob("pip-*.whl"))
        except (subprocess.CalledProcessError, OSError, StopIteration):
            raise OSError("this Python has no pip; install python3-venv and try again") from None
        command = [str(python), str(wheel / "pip"), "install", "--no-index", str(wheel)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
