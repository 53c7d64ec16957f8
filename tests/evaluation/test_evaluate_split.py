"""`evaluate` on one subset of a split."""

import json

import pytest
from stub_evaluation import GLIOMA, printed, rows_of, write_mat
from stub_evaluation import folder as folder
from stub_evaluation import models as models
from stub_evaluation import run as run

from cascade.datasets.split import make_split, write_split
from cascade.errors import CascadeError


@pytest.fixture
def split(folder):
    """A split of 27 subjects with one slice each, nine in each class."""
    for path in folder.iterdir():
        path.unlink()
    for number in range(27):
        write_mat(folder / f"{number}.mat", f"{number}", number % 3, percent=60 + number)
    split, _ = make_split(folder, seed=0)
    path = folder.parent / "split.json"
    write_split(split, path, seed=0)
    return path, split


def test_only_the_selected_subset_is_evaluated(run, split, tmp_path):
    path, content = split
    evaluation = run(split_file=path, subset="test")
    assert [row["path"] for row in rows_of(tmp_path / "out")] == [item.path for item in content.subset("test")]
    assert 0 < evaluation.metrics.slices < 27
    assert (evaluation.subset, evaluation.split_sha256) == ("test", content.sha256)


@pytest.mark.parametrize(("other", "trained_on_this_split"), [({}, True), ({"other_splits": ["another"]}, False)])
def test_models_trained_on_another_split_are_reported(run, split, models, other, trained_on_this_split):
    path, content = split
    table = models / "models.json"
    records = json.loads(table.read_text())
    for record in records.values():
        record["settings"] = {"split_sha256": content.sha256}
    records["classifier"]["settings"] |= other
    table.write_text(json.dumps(records))
    evaluation = run(split_file=path)
    assert evaluation.models_trained_on_this_split is trained_on_this_split
    assert ("records name another split" in printed(evaluation, width=500)) is not trained_on_this_split
    assert "no split was given" in printed(run(), width=500)
    assert "the subset is train" in printed(run(split_file=path, subset="train"), width=500)


def test_models_that_record_no_split_were_not_trained_on_this_one(run, split):
    assert run(split_file=split[0]).models_trained_on_this_split is False


def test_a_file_of_the_subset_that_is_missing_or_changed_is_an_error(run, split, folder):
    path, content = split
    name = content.subset("test")[0].path
    write_mat(folder / name, "1", GLIOMA, percent=33)
    with pytest.raises(CascadeError, match="has changed since the split was made"):
        run(split_file=path)
    (folder / name).unlink()
    with pytest.raises(CascadeError, match="not in the folder"):
        run(split_file=path)


def test_an_unknown_subset_is_an_error(run, split):
    with pytest.raises(CascadeError, match="unknown subset 'tests'"):
        run(split_file=split[0], subset="tests")
