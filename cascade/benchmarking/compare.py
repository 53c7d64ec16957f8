"""Compare a benchmark with an earlier one."""

from dataclasses import dataclass
from typing import Any

from cascade.errors import CascadeError

SPEEDS = ("models", "end_to_end")


@dataclass(frozen=True)
class Change:
    """Speed-up of one backend at one batch size: current / earlier slices per second, medians of the rounds."""

    backend: str
    batch_size: int
    models: float
    end_to_end: float


@dataclass(frozen=True)
class Comparison:
    """Comparison with an earlier benchmark.

    Attributes:
        then: Date of the earlier benchmark.
        changes: Speed-up of each backend and batch size that both have.
        missing: Backends and batch sizes that only one of them has.
        warnings: Differences that make the two hard to compare.
    """

    then: str
    changes: list[Change]
    missing: list[str]
    warnings: list[str]


def compare_reports(current: dict[str, Any], earlier: dict[str, Any]) -> Comparison:
    """Compare two contents of benchmark.json.

    Raises:
        CascadeError: If the earlier one is incomplete.
    """
    try:
        before, after = _batches(earlier), _batches(current)
        changes = [
            Change(*key, *(round(after[key][item]["median"] / before[key][item]["median"], 4) for item in SPEEDS))
            for key in after
            if key in before
        ]
        missing = [
            f"{backend}, batch {size}: only in the {'current' if (backend, size) in after else 'earlier'} benchmark"
            for backend, size in {**after, **before}
            if (backend, size) not in before or (backend, size) not in after
        ]
        return Comparison(str(earlier["date"]), changes, missing, _warnings(current, earlier))
    except (KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise CascadeError(
            f"the earlier benchmark is incomplete ({error!r})", fix="specify an unmodified benchmark.json"
        ) from error


def _batches(content: dict[str, Any]) -> dict[tuple[str, int], dict[str, Any]]:
    return {
        (name, batches["batch_size"]): batches
        for name, backend in content["backends"].items()
        for batches in backend["batches"]
    }


def _warnings(current: dict[str, Any], earlier: dict[str, Any]) -> list[str]:
    warnings = []

    def compare(label: str, before: object, after: object) -> None:
        if before != after:
            warnings.append(f"different {label}: was {before}, is {after}")

    machines = earlier["machine"], current["machine"]
    for name, value in machines[1].items():
        if name not in ("load_average", "versions"):
            compare(f"machine, {name}", machines[0].get(name), value)
    for name in sorted({**machines[0]["versions"], **machines[1]["versions"]}):
        compare(f"version of {name}", *(machine["versions"].get(name) for machine in machines))
    for name, sha256 in current["models"].items():
        if sha256 != earlier["models"][name]:
            warnings.append(f"different {name}: the SHA-256 of the model differs")
    compare("slices", earlier["slices"], current["slices"])
    for name in sorted(earlier["rooflines"].keys() & current["rooflines"].keys()):
        before, after = (content["rooflines"][name]["gflops"] for content in (earlier, current))
        if not 0.9 < after / before < 1.1:
            warnings.append(f"the peak of {name} changed from {before:g} to {after:g} GFLOP/s")
    return warnings
