"""Run commands side by side in child processes and account for what each of them used.

Standard library only, on purpose: a child's peak memory starts at that of the process that forked
it, so the driver must stay small.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Run:
    """What one child process used.

    Attributes:
        cpu_s: User and system seconds of the child and its own children.
        wall_s: Elapsed seconds.
        rss_mb: Peak resident memory, MiB.
        said: JSON object that the child printed on its last line, if it did.
    """

    cpu_s: float
    wall_s: float
    rss_mb: float
    said: dict[str, object]


def environment(threads: int) -> dict[str, str]:
    """Return an environment with that many threads in every numeric library."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "GDAL_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(names, str(threads)), "OMNISAT_BENCHMARK": "1"}


def run(command: list[str], threads: int) -> Run:
    """Run a command to its end.

    Raises:
        SystemExit: If it fails; its output is shown.
    """
    begin = time.monotonic()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment(threads)
    ) as child:
        assert child.stdout is not None
        output = child.stdout.read().decode(errors="replace")
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)}\nended with {child.returncode}:\n{output[-4000:]}")
    lines = output.strip().splitlines()
    said = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    return Run(
        usage.ru_utime + usage.ru_stime, time.monotonic() - begin, usage.ru_maxrss / 1024, said
    )


def alternate(commands: dict[str, list[str]], repeats: int, threads: int) -> dict[str, list[Run]]:
    """Run commands in turn, A B A B …, so that what else the machine does meets all of them."""
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for turn in range(repeats):
        for name, command in commands.items():
            done = run(command, threads)
            runs[name].append(done)
            print(
                f"  {turn + 1}/{repeats}  {name:<28} {done.cpu_s:8.2f} CPU s"
                f" {done.wall_s:8.2f} s {done.rss_mb:7.0f} MiB",
                flush=True,
            )
    return runs


def cpu(runs: list[Run]) -> float:
    """Return the median CPU seconds."""
    return statistics.median(entry.cpu_s for entry in runs)


def peak(runs: list[Run]) -> float:
    """Return the largest peak memory, MiB."""
    return max(entry.rss_mb for entry in runs)


def plain(runs: dict[str, list[Run]]) -> dict[str, list[dict[str, object]]]:
    """Return runs as JSON values."""
    return {name: [asdict(entry) for entry in group] for name, group in runs.items()}


def machine_facts() -> dict[str, object]:
    """Describe the machine and how busy it is with other work."""
    model = "unknown"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory, 1),
        "load_1_5_15": [round(x, 2) for x in os.getloadavg()],
        "system": platform.platform(),
        "python": platform.python_version(),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def parser(about: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options every benchmark has."""
    made = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    made.add_argument("--repeats", type=int, default=3, help="turns of A B A B")
    made.add_argument("--threads", type=int, default=1, help="threads of every child")
    made.add_argument("--json", type=Path, help="where the figures go; default: out/benchmarks/")
    return made


def deliver(name: str, args: argparse.Namespace, figures: dict[str, object]) -> None:
    """Write the figures with the facts of the machine."""
    path = args.json or HERE.parent / "out" / "benchmarks" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    asked = {key: str(value) for key, value in vars(args).items() if key != "json"}
    content = {"benchmark": name, "asked": asked, "machine": machine_facts(), **figures}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(f"written: {path}")


def table(rows: list[tuple[str, ...]]) -> None:
    """Print rows in columns; the first is the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for number, row in enumerate(rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
        if number == 0:
            print("  ".join("-" * width for width in widths))


def python(script: str, *words: object) -> list[str]:
    """Return the command that runs a script of this folder."""
    return [sys.executable, str(HERE / script), *(str(word) for word in words)]
