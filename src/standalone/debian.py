"""Programs of Debian's packages: the system's own, else unpacked into a cache directory. That needs
no root, changes nothing on the system and starts no daemon."""

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from errors import ComponentMissing

_SYSTEM_FOLDERS = ":/usr/sbin:/sbin"
_FOLDERS = ("usr/sbin", "usr/bin", "sbin", "bin")


@dataclass(frozen=True, slots=True)
class Program:
    """A program and the directories of the libraries that it needs ("" for the system's)."""

    path: Path
    libraries: str = ""


def find_program(name: str, package: str, cache: Path | None = None) -> Program:
    """The system's program, else the one of the package as unpacked before, else a fresh download
    (Debian, Ubuntu).

    Raises ComponentMissing when there is none and none can be fetched.
    """
    installed = shutil.which(name, path=os.environ.get("PATH", "") + _SYSTEM_FOLDERS)
    if installed is not None:
        return Program(Path(installed))
    folder = (cache or cache_folder()) / f"{package}-{platform.machine()}"
    found = _unpacked(name, folder)
    if found is None:
        _fetch(package, folder)
        found = _unpacked(name, folder)
    if found is None:
        raise ComponentMissing(f"{name} cannot be fetched: its package holds no program")
    return found


def cache_folder() -> Path:
    """Where downloaded programs are kept; the service account can reach it."""
    if os.geteuid() == 0:
        return Path("/var/cache/bigbrotr")
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "bigbrotr"


def missing_packages(simulation: str) -> list[str]:
    """The packages that `apt-get --simulate install` says it would install."""
    return re.findall(r"^Inst (\S+) \(", simulation, re.MULTILINE)


def _fetch(package: str, folder: Path) -> None:
    print(f"suite: {package} is not installed, fetching it into {folder}", flush=True)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Complete or not there at all, also when this is interrupted or done twice at once.
        with TemporaryDirectory(dir=folder.parent) as work:
            _unpack(package, Path(work))
            shutil.rmtree(folder, ignore_errors=True)
            (Path(work) / "root").rename(folder)
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or str(error)
        last = str(detail).strip().splitlines()[-1:] or [""]
        raise ComponentMissing(
            f"{package} is not installed and cannot be fetched ({last[0]}); "
            f"install the package {package}"
        ) from error


def _unpack(package: str, work: Path) -> None:
    work.chmod(0o755)
    downloads = work / "packages"
    downloads.mkdir()
    try:
        _download(package, [], downloads)
    except subprocess.SubprocessError:
        # No package lists, as in container images, or lists too old.
        _download(package, _own_package_lists(work), downloads)
    for archive in sorted(downloads.glob("*.deb")):
        _run(["dpkg-deb", "--extract", str(archive), str(work / "root")], work)


def _download(package: str, options: list[str], downloads: Path) -> None:
    install = ["install", "--no-install-recommends", package]
    simulation = _run(["apt-get", *options, "--simulate", *install], downloads)
    packages = {package, *missing_packages(simulation)}
    _run(["apt-get", *options, "download", *sorted(packages)], downloads)


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command,
        check=True,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"LC_ALL": "C"},
    )
    return done.stdout


def _own_package_lists(folder: Path) -> list[str]:
    """Options that make apt-get use its own lists in `folder`, which needs no root; updated."""
    for name in ("lists/partial", "archives/partial"):
        (folder / "apt" / name).mkdir(parents=True)
    options = [
        f"-oDir::State::Lists={folder}/apt/lists",
        f"-oDir::Cache={folder}/apt",
        f"-oDir::Cache::Archives={folder}/apt/archives",
        "-oAPT::Sandbox::User=",
    ]
    _run(["apt-get", *options, "update"], folder)
    return options


def _unpacked(name: str, folder: Path) -> Program | None:
    for relative in _FOLDERS:
        program = folder / relative / name
        if program.exists():
            libraries = {str(found.parent) for found in folder.rglob("*.so.*")}
            return Program(program, ":".join(sorted(libraries)))
    return None
