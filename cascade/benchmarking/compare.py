"""Compare a benchmark with an earlier one."""

from dataclasses import dataclass
from typing import Any

from cascade.errors import CascadeError


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
    """Compare two contents of benchmark.json, or raise CascadeError if the earlier one is incomplete."""
    try:
        before, after = _medians(earlier), _medians(current)
        changes = [
            Change(*key, *(round(new / old, 4) for new, old in zip(after[key], before[key], strict=True)))
            for key in after
            if key in before
        ]
        missing = [
            f"{name}, batch {size}: only in the {which} benchmark"
            for which, one, other in (("current", after, before), ("earlier", before, after))
            for name, size in one
            if (name, size) not in other
        ]
        return Comparison(str(earlier["date"]), changes, missing, _warnings(current, earlier))
    except (KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise CascadeError(
            f"--compare: the earlier benchmark is incomplete ({error!r})", fix="specify an unmodified benchmark.json"
        ) from error


def _medians(content: dict[str, Any]) -> dict[tuple[str, int], tuple[float, float]]:
    """Return the speed of the models and from files to results, by backend and batch size."""
    return {
        (name, item["batch_size"]): (item["models"]["median"], item["end_to_end"]["median"])
        for name, backend in content["backends"].items()
        for item in backend["batches"]
    }


def _warnings(current: dict[str, Any], earlier: dict[str, Any]) -> list[str]:
    before, after = _facts(earlier), _facts(current)
    warnings = [
        f"different {label}: was {before.get(label)}, is {after.get(label)}"
        for label in after | before
        if before.get(label) != after.get(label)
    ]
    for name in sorted(earlier["rooflines"].keys() & current["rooflines"].keys()):
        was, is_now = (content["rooflines"][name]["gflops"] for content in (earlier, current))
        if not 0.9 < is_now / was < 1.1:
            warnings.append(f"the peak of {name} changed from {was:g} to {is_now:g} GFLOP/s")
    return warnings


def _facts(content: dict[str, Any]) -> dict[str, object]:
    """Return what should be the same in both benchmarks."""
    machine = {name: value for name, value in content["machine"].items() if name not in ("load_average", "versions")}
    return {
        **{f"machine, {name}": value for name, value in machine.items()},
        **{f"version of {name}": version for name, version in sorted(content["machine"]["versions"].items())},
        **{f"{name} (SHA-256)": sha256[:12] for name, sha256 in content["models"].items()},
        "slices": content["slices"],
    }
