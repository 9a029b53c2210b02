"""`omnisat doctor`: is everything in place to map here?"""

import importlib
import os
import platform
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import typer

from omnisat_cli.cli.console import columns, say, say_json, set_up_logging
from omnisat_cli.cli.guard import FOREIGN_PROJ
from omnisat_cli.cli.options import AsJson, Verbose
from omnisat_cli.errors import Exit, OmnisatError

_DRIVERS = {"GTiff": "read and write GeoTIFF", "COG": "write maps", "JP2OpenJPEG": "read JPEG 2000"}
_LIBRARIES = (
    *("torch", "numpy", "rasterio", "xarray", "h5py", "h5netcdf", "zarr", "pyproj", "shapely"),
    *("geopandas", "dask", "pydantic", "safetensors", "typer"),
)
_LEAST_FREE = 2 * 2**30
_LEAST_MEMORY = 2 * 2**30


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        topic: What was looked at.
        state: "ok", "note" (worth knowing) or "fault" (omnisat will not work).
        text: What was found, with numbers.
        advice: What to do about it, or "".
    """

    topic: str
    state: str
    text: str
    advice: str = ""


def doctor(as_json: AsJson = False, verbose: Verbose = 0) -> None:
    """Check that everything is in place to map here.

    Ends with 0 when omnisat can work here, 3 when it cannot.
    """
    set_up_logging(verbose, quiet=False)
    versions, findings = _libraries()
    if all(finding.state != "fault" for finding in findings):
        findings += [*_hardware(), *_gpu(), *_gdal(), *_models()]
    findings += [*_disk(), *_surroundings()]
    usable = all(finding.state != "fault" for finding in findings)
    if as_json:
        plain = [
            {"topic": f.topic, "state": f.state, "text": f.text, "advice": f.advice}
            for f in findings
        ]
        say_json({"usable": usable, "versions": versions, "findings": plain})
    else:
        say("\n".join(columns([(f.state, f.topic, f.text) for f in findings])))
        for finding in findings:
            if finding.advice:
                say(f"{finding.topic}: {finding.advice}")
        say("omnisat can work here." if usable else "omnisat cannot work here.")
    if not usable:
        raise typer.Exit(int(Exit.REFUSED))


def _libraries() -> tuple[dict[str, str], list[Finding]]:
    """Import every library: an installed one may still not load."""
    from omnisat_cli.outputs.provenance import library_versions, omnisat_version

    versions = {
        "omnisat": omnisat_version(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        **library_versions(_LIBRARIES),
    }
    findings = []
    for name in _LIBRARIES:
        try:
            module = importlib.import_module(name)
        except (ImportError, OSError) as error:
            advice = "install omnisat again into a fresh environment"
            findings.append(Finding(name, "fault", f"cannot be loaded: {error}", advice))
            continue
        versions |= _native_versions(name, module)
    shown = ", ".join(f"{name} {version}" for name, version in versions.items())
    return versions, [Finding("versions", "ok", shown), *findings, *_torchvision(versions)]


def _native_versions(name: str, module: ModuleType) -> dict[str, str]:
    """Return the version of the C library behind a Python one."""
    if name == "rasterio":
        return {"gdal": str(module.__gdal_version__)}
    if name == "pyproj":
        return {"proj": str(module.proj_version_str)}
    if name == "h5py":
        return {"hdf5": str(module.version.hdf5_version)}
    return {}


def _torchvision(versions: dict[str, str]) -> list[Finding]:
    """Find a torchvision built for another torch: whatever imports both then fails."""
    from importlib.metadata import PackageNotFoundError, requires, version

    try:
        wanted = [entry for entry in requires("torchvision") or () if entry.startswith("torch==")]
        found = version("torchvision")
    except PackageNotFoundError:
        return []
    torch_version = versions.get("torch", "")
    plain = torch_version.split("+")[0]
    if not wanted or wanted[0].removeprefix("torch==").split(";")[0].strip() == plain:
        return []
    text = f"torchvision {found} was built for {wanted[0]}, torch is {torch_version}"
    advice = "omnisat does not use torchvision; uninstall or match it for other programs"
    return [Finding("torchvision", "note", text, advice)]


def _hardware() -> list[Finding]:
    from omnisat_cli.job import Execution
    from omnisat_cli.outputs.disk import human
    from omnisat_cli.runners.setup import thread_count

    findings = [Finding("cpu", "ok", f"{thread_count(Execution())} cores for this process")]
    memory = _memory_bytes()
    if memory:
        state = "ok" if memory >= _LEAST_MEMORY else "note"
        advice = "" if state == "ok" else "omnisat wants 2 GB; use --memory and a small --block"
        findings.append(Finding("memory", state, human(memory), advice))
    return findings


def _memory_bytes() -> int:
    """Return the memory of the machine, or of the container if that is less; 0 if unknown."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (Path("/sys/fs/cgroup") / name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            total = min(total, int(text))
    return total


def _gpu() -> list[Finding]:
    import torch

    from omnisat_cli.outputs.disk import human

    if not torch.cuda.is_available():
        built = torch.version.cuda
        text = "none; maps are computed on the CPU"
        reason = "no driver or no GPU found" if built else "this torch is built without CUDA"
        return [Finding("gpu", "ok", f"{text} ({reason})")]
    findings = []
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16: slower"
        text = f"cuda:{index} {about.name}, {human(about.total_memory)}, {bf16}"
        findings.append(Finding("gpu", "ok", text))
    return findings


def _gdal() -> list[Finding]:
    from rasterio.env import Env

    with Env() as env:
        drivers = env.drivers()
    missing = [name for name in _DRIVERS if name not in drivers]
    if not missing:
        return [Finding("gdal", "ok", f"drivers {', '.join(_DRIVERS)}")]
    lost = "; ".join(f"{name}: cannot {_DRIVERS[name]}" for name in missing)
    fatal = any(name != "JP2OpenJPEG" for name in missing)
    advice = "install rasterio from its wheel: pip install --force-reinstall rasterio"
    return [Finding("gdal", "fault" if fatal else "note", f"missing drivers: {lost}", advice)]


def _disk() -> list[Finding]:
    from omnisat_cli.outputs.disk import human

    findings = []
    for name, folder in (("here", Path.cwd()), ("temporary", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(folder).free
        low = free < _LEAST_FREE
        text = f"{human(free)} free in {folder}"
        advice = "blocks and maps of large areas need more; predict --dry-run says how much"
        findings.append(Finding(f"disk, {name}", "note" if low else "ok", text, advice * low))
    return findings


def _models() -> list[Finding]:
    from omnisat_cli.packs.registry import list_packs, verify_weights

    try:
        packs = list_packs()
    except OmnisatError as error:
        return [Finding("models", "fault", str(error), "install omnisat again")]
    if not packs:
        advice = "name the folder of a pack with --model, or install omnisat again"
        return [Finding("models", "note", "no bundled model pack", advice)]
    findings = []
    for pack in packs:
        name = f"{pack.card.name} {pack.card.version}"
        try:
            digest = verify_weights(pack)
            findings.append(Finding("model", "ok", f"{name}, weights sha256 {digest[:16]}…"))
        except OmnisatError as error:
            findings.append(Finding("model", "fault", str(error), "install omnisat again"))
    return findings


def _surroundings() -> list[Finding]:
    findings = []
    if FOREIGN_PROJ:
        text = f"{', '.join(FOREIGN_PROJ)} is set; omnisat ignores it"
        advice = "it belongs to another installation (conda, QGIS, modules) and breaks others too"
        findings.append(Finding("environment", "note", text, advice))
    return findings
