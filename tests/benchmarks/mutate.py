"""Change the code at random places, and count how many of the changes make a test fail.

    pip install -e '.[mutation]'
    python tests/benchmarks/mutate.py --count 40                   40 changes in each package of TESTS
    python tests/benchmarks/mutate.py cascade/evaluation --seed 1  other places of one package

cosmic-ray applies one change at a time to a copy of the repository: another operator, number, keyword or comparison.
The tests of the package then run until the first failure. Every place has the same chance, and one of its changes is
drawn. Type annotations and the code named in EQUIVALENT are not changed. A change that survives is printed as a diff:
write a test that kills it, unless the code does the same with it.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import use_mutation
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).resolve().parents[2]
TESTS = {
    "cascade/pipeline.py": ["tests/test_pipeline.py"],
    "cascade/runtime": ["tests/runtime", "tests/test_pipeline.py"],
    "cascade/evaluation": ["tests/evaluation"],
    "cascade/prediction": ["tests/prediction"],
}
EQUIVALENT = re.compile(r"strict=|@dataclass|figsize=")
"""Code whose changes alter no result: checks of equal lengths, frozen classes, sizes of figures."""

WITH_ARGUMENTS = ("core/VariableReplacer", "core/VariableInserter")  # they need the names of variables


@dataclass(frozen=True)
class Mutation:
    """One change: the operator of cosmic-ray, and its number among the places of the file that fit."""

    path: Path
    operator: str
    occurrence: int


def find_mutations(root: Path, package: str) -> list[list[Mutation]]:
    """Return the places of a package that can be changed, each with all its changes."""
    files = sorted((root / package).rglob("*.py")) if (root / package).is_dir() else [root / package]
    places = defaultdict(list)
    for path in files:
        code = path.read_text()
        annotations = annotation_ranges(code)
        nodes = list(ast_nodes(get_ast(code)))
        for name in sorted(set(operator_names()) - set(WITH_ARGUMENTS)):
            operator = get_operator(name)()
            found = [position for node in nodes for position in operator.mutation_positions(node)]
            for occurrence, (start, end) in enumerate(found):
                line = code.splitlines()[start[0] - 1]
                annotation = any(first <= start and end <= last for first, last in annotations)
                if not annotation and not EQUIVALENT.search(line):
                    places[path, start, end].append(Mutation(path, name, occurrence))
    return list(places.values())


def annotation_ranges(code: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return start and end, each (line, column), of every type annotation."""
    tree = list(ast.walk(ast.parse(code)))
    annotations = [getattr(node, field, None) for node in tree for field in ("annotation", "returns")]
    return [
        ((node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0))
        for node in annotations
        if node is not None
    ]


def run_tests(root: Path, tests: list[str], timeout: float | None = None) -> str:
    """Run tests of a copy up to the first failure. Returns `survived`, `killed` or `timeout`."""
    options = ["-q", "-x", "-m", "not slow", "-p", "no:randomly", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, *tests]
    environment = os.environ | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        ended = subprocess.run(command, cwd=root, env=environment, capture_output=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return "timeout"
    return "killed" if ended.returncode else "survived"


def tests_first(path: Path, root: Path, tests: list[str]) -> list[str]:
    """Return the tests, those first that mirror the changed file: they fail the earliest."""
    mirror = Path("tests", *path.relative_to(root / "cascade").parent.parts, f"test_{path.name}")
    return ([str(mirror)] if (root / mirror).exists() else []) + tests


def measure_package(root: Path, package: str, count: int, seed: int) -> tuple[int, int]:
    """Test a sample of the changes of a package. Returns the number of changes killed, and of all tested."""
    start = time.monotonic()
    if run_tests(root, TESTS[package]) != "survived":
        raise SystemExit(f"{', '.join(TESTS[package])} fail without any change")
    timeout = 60 + 5 * (time.monotonic() - start)
    draw = random.Random(seed)
    places = find_mutations(root, package)
    killed = 0
    sample = [draw.choice(changes) for changes in draw.sample(places, min(count, len(places)))]
    for number, mutation in enumerate(sample, 1):
        with use_mutation(mutation.path, get_operator(mutation.operator)(), mutation.occurrence) as (before, after):
            outcome = run_tests(root, tests_first(mutation.path, root, TESTS[package]), timeout)
        killed += outcome != "survived"
        name = mutation.path.relative_to(root).as_posix()
        print(f"{number}/{len(sample)} {outcome} {name} {mutation.operator} {mutation.occurrence}", flush=True)
        if outcome == "survived":
            diff = unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=1)
            print("\n".join(list(diff)[2:]), flush=True)
    print(f"{package}: {killed} of {len(sample)} changes killed, of {len(places)} places; seed {seed}", flush=True)
    return killed, len(sample)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="*", choices=[*TESTS, []], help="all by default")  # []: none given
    parser.add_argument("--count", type=int, default=40, help="changes of each package")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "cascade"
        shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "results", "runs"))
        results = [
            measure_package(root, package, arguments.count, arguments.seed) for package in arguments.packages or TESTS
        ]
    killed, tested = (sum(numbers) for numbers in zip(*results, strict=True))
    print(f"{killed} of {tested} changes killed: {100 * killed / tested:.0f} %")


if __name__ == "__main__":
    main()
