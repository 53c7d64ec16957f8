"""Change the code at random places, and count how many of the changes make a test fail.

    pip install -e '.[dev,mutation]'
    python tests/benchmarks/mutate.py --count 160                   160 changes in all of PACKAGES
    python tests/benchmarks/mutate.py cascade/evaluation --seed 1   other changes, in one package

1. The tests of a copy of the repository run once. Coverage records which of them execute each line.
2. cosmic-ray changes one place at a time: another operator, number, keyword or comparison. Every place has the same
   chance, and one of its changes is drawn. Type annotations and the code named in EQUIVALENT are not changed.
3. The tests that execute the changed line run until the first failure. Tests marked slow are left out.

A change that survives is printed as a diff: write a test that kills it, unless the code does the same with it.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from difflib import unified_diff
from itertools import islice
from pathlib import Path
from random import Random

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code, use_mutation
from cosmic_ray.plugins import get_operator, operator_names
from coverage import CoverageData
from scipy.stats import binomtest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ["cascade/pipeline.py", "cascade/runtime", "cascade/evaluation", "cascade/prediction"]
TESTS = ["tests/test_pipeline.py", "tests/runtime", "tests/evaluation", "tests/prediction", "tests/volume", "tests/cli"]
SLOW = {"cluster.py", "ray_executor.py"}
"""Files that only slow tests execute: they start a cluster. They are not changed."""

EQUIVALENT = re.compile(r"strict=|@dataclass|figsize=")
"""Code whose changes alter no result: checks of equal lengths, frozen classes, sizes of figures."""

WITH_ARGUMENTS = ("core/VariableReplacer", "core/VariableInserter")  # they need the names of variables


@dataclass(frozen=True)
class Mutation:
    """One change: the operator of cosmic-ray, its number among the places of the file that fit, and the line."""

    path: Path
    operator: str
    occurrence: int
    line: int


def find_mutations(root: Path, package: str) -> list[list[Mutation]]:
    """Return the places of a package that can be changed, each with all its changes."""
    files = sorted((root / package).rglob("*.py")) if (root / package).is_dir() else [root / package]
    places = defaultdict(list)
    for path in (path for path in files if path.name not in SLOW):
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
                    places[path, start, end].append(Mutation(path, name, occurrence, start[0]))
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


def draw_mutations(places: list[list[Mutation]], count: int, seed: int) -> list[Mutation]:
    """Draw places, and one change of each. cosmic-ray also makes changes that are no Python: these are not drawn."""
    random = Random(seed)
    drawn = (
        next(filter(is_python, random.sample(changes, len(changes))), None)
        for changes in random.sample(places, len(places))
    )
    return list(islice(filter(None, drawn), count))


def is_python(mutation: Mutation) -> bool:
    """Return True if the changed code can be parsed."""
    try:
        ast.parse(mutate_code(mutation.path.read_text(), get_operator(mutation.operator)(), mutation.occurrence))
    except SyntaxError:
        return False
    return True


def run_pytest(root: Path, arguments: list[str], timeout: float | None = None) -> str:
    """Run tests of a copy up to the first failure. Returns `survived`, `killed` or `timeout`."""
    options = ["-q", "-x", "-m", "not slow", "-p", "no:randomly", "-p", "no:cacheprovider"]
    environment = os.environ | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    with (root / "pytest.log").open("w") as log:
        try:
            ended = subprocess.run(
                [sys.executable, "-m", "pytest", *options, *arguments],
                cwd=root,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired:
            return "timeout"
    return "killed" if ended.returncode else "survived"


def record_tests(root: Path) -> CoverageData:
    """Run the tests without any change, and record which of them execute each line."""
    coverage = ["--cov", "--cov-context=test", "--cov-report=", "--cov-fail-under=0"]
    if run_pytest(root, [*coverage, *TESTS]) != "survived":
        raise SystemExit(f"{(root / 'pytest.log').read_text()}\nThe tests fail without any change.")
    record = CoverageData(str(root / ".coverage"))
    record.read()
    return record


def covering_tests(record: CoverageData, path: Path, line: int) -> list[str]:
    """Return the tests that execute a line, those first that mirror the file: they fail the earliest.

    A line outside the functions is executed when the file is imported, in no test: then these are the tests that
    execute any line of the file.
    """
    tests_of_line = {
        number: {test for test, _, _ in (context.rpartition("|") for context in contexts) if test}
        for number, contexts in record.contexts_by_lineno(str(path)).items()
    }
    tests = tests_of_line.get(line) or set().union(*tests_of_line.values())
    return sorted(tests, key=lambda test: (f"/test_{path.stem}.py" not in test, test))


def run_mutation(root: Path, mutation: Mutation, record: CoverageData, timeout: float) -> tuple[str, str]:
    """Run the tests of one change. Returns the outcome, `uncovered` if there are none, and the change as a diff."""
    tests = covering_tests(record, mutation.path, mutation.line)
    with use_mutation(mutation.path, get_operator(mutation.operator)(), mutation.occurrence) as (before, after):
        outcome = run_pytest(root, tests, timeout) if tests else "uncovered"
    diff = unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=1)
    return outcome, "\n".join(list(diff)[2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="*", choices=[*PACKAGES, []], help="all by default")  # []: none given
    parser.add_argument("--count", type=int, default=160, help="changes")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "cascade"
        shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "results", "runs"))
        start = time.monotonic()
        record = record_tests(root)
        timeout = 60 + time.monotonic() - start
        places = [place for package in arguments.packages or PACKAGES for place in find_mutations(root, package)]
        sample = draw_mutations(places, arguments.count, arguments.seed)
        outcomes = Counter[str]()
        for number, mutation in enumerate(sample, 1):
            outcome, diff = run_mutation(root, mutation, record, timeout)
            outcomes[outcome] += 1
            where = f"{mutation.path.relative_to(root).as_posix()}:{mutation.line}"
            print(f"{number}/{len(sample)} {outcome} {where} {mutation.operator} {mutation.occurrence}", flush=True)
            if outcome in ("survived", "uncovered"):
                print(diff, flush=True)
    killed = outcomes["killed"] + outcomes["timeout"]
    low, high = binomtest(killed, len(sample)).proportion_ci(method="wilson")
    print(f"{killed} of {len(sample)} changes killed, of {len(places)} places; seed {arguments.seed}: {dict(outcomes)}")
    print(f"{killed / len(sample):.1%}, 95 % interval {low:.1%} to {high:.1%}")


if __name__ == "__main__":
    main()
