"""Two reports → how the later differs."""

from dataclasses import dataclass
from typing import Any

from cascade.errors import CascadeError


@dataclass(frozen=True)
class Change:
    """One backend at one batch size: slices a second now over then, above 1 being faster; medians of the rounds."""

    backend: str
    batch_size: int
    models: float
    end_to_end: float


@dataclass(frozen=True)
class Comparison:
    """warnings  what makes the two hard to compare.
    missing      backends and batch sizes that only one of them has.
    """

    then: str
    changes: list[Change]
    missing: list[str]
    warnings: list[str]


def compare_reports(now: dict[str, Any], then: dict[str, Any]) -> Comparison:
    """Both as benchmark.json holds them. Raises CascadeError where the earlier one lacks a part."""
    try:
        before, after = _batches(then), _batches(now)
        changes = [
            Change(
                *key,
                **{
                    name: round(after[key][name]["median"] / before[key][name]["median"], 4)
                    for name in ("models", "end_to_end")
                },
            )
            for key in after
            if key in before
        ]
        missing = [
            f"{backend}, batch {size}: only {'now' if (backend, size) in after else 'then'}"
            for backend, size in {**after, **before}
            if (backend, size) not in before or (backend, size) not in after
        ]
        return Comparison(str(then["date"]), changes, missing, _warnings(now, then))
    except (KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise CascadeError(
            f"the earlier benchmark lacks a part ({error!r})", fix="give a benchmark.json that nobody changed"
        ) from error


def _batches(content: dict[str, Any]) -> dict[tuple[str, int], dict[str, Any]]:
    return {
        (name, batches["batch_size"]): batches
        for name, backend in content["backends"].items()
        for batches in backend["batches"]
    }


def _warnings(now: dict[str, Any], then: dict[str, Any]) -> list[str]:
    """Cores, memory and settings count as the machine; versions are what one may want to compare, and are named too."""
    warnings = []
    for name, value in now["machine"].items():
        if name not in ("load_average", "versions") and value != (before := then["machine"].get(name)):
            warnings.append(f"another machine: {name} was {before}, is {value}")
    for name in sorted({**now["machine"]["versions"], **then["machine"]["versions"]}):
        before, after = (content["machine"]["versions"].get(name) for content in (then, now))
        if before != after:
            warnings.append(f"another version of {name}: was {before}, is {after}")
    warnings += [f"another {name}: the model's sha256 differs" for name in now["models"] if _differ(now, then, name)]
    if now["slices"] != then["slices"]:
        warnings.append(f"other slices: were {then['slices']}, are {now['slices']}")
    limits = [content["limits"]["cpu"]["gflops"] for content in (then, now)]
    if not 0.9 < limits[1] / limits[0] < 1.1:
        warnings.append(f"the processor itself went from {limits[0]:g} to {limits[1]:g} GFLOP/s in the matrix product")
    return warnings


def _differ(now: dict[str, Any], then: dict[str, Any], name: str) -> bool:
    return bool(now["models"][name] != then["models"][name])
