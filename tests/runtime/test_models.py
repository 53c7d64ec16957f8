"""A models folder is accepted only if it matches its manifest, models.json."""

from __future__ import annotations

import hashlib
import json

import pytest

from cascade.errors import CascadeError
from cascade.runtime.models import CLASSIFIER, SEGMENTER, find_model


@pytest.fixture
def folder(tmp_path):
    """Both graphs, a few bytes each, and their manifest."""
    table = {}
    for name in (SEGMENTER, CLASSIFIER):
        content = f"the {name}".encode()
        (tmp_path / f"{name}.onnx").write_bytes(content)
        table[name] = {"sha256": hashlib.sha256(content).hexdigest(), "data": "made up"}
    (tmp_path / "models.json").write_text(json.dumps(table))
    return tmp_path


@pytest.mark.parametrize("name", [SEGMENTER, CLASSIFIER])
def test_a_graph_has_its_hash_and_record(folder, name):
    graph = find_model(name, folder)
    assert graph.path == folder / f"{name}.onnx"
    assert graph.sha256 == hashlib.sha256(f"the {name}".encode()).hexdigest()
    assert graph.record == {"sha256": graph.sha256, "data": "made up"}


def test_modified_bytes_are_rejected(folder):
    (folder / "segmenter.onnx").write_bytes(b"the segmentes")
    with pytest.raises(CascadeError, match=r"segmenter\.onnx: .*manifest"):
        find_model(SEGMENTER, folder)
    assert find_model(CLASSIFIER, folder).path.is_file()


def test_errors_name_a_missing_graph_manifest_or_folder(folder, tmp_path):
    (folder / "classifier.onnx").unlink()
    with pytest.raises(CascadeError, match=r"classifier\.onnx: there is no such file"):
        find_model(CLASSIFIER, folder)
    with pytest.raises(CascadeError, match=r"nowhere/models\.json: there is no such file"):
        find_model(SEGMENTER, tmp_path / "nowhere")


def test_a_graph_in_place_of_its_folder_is_not_called_damaged(folder):
    """The fix was to export the models again."""
    with pytest.raises(CascadeError, match="there is no such file") as raised:
        find_model(SEGMENTER, folder / "segmenter.onnx")
    assert "specify a folder" in raised.value.fix


def test_a_manifest_that_cannot_be_read_is_rejected(folder):
    (folder / "models.json").unlink()
    (folder / "models.json").mkdir()
    with pytest.raises(CascadeError, match=r"models\.json: .* segmenter"):
        find_model(SEGMENTER, folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"segmenter": {}}', '{"segmenter": 3}', '{"segmenter": {"sha256": '])
def test_a_manifest_without_a_valid_entry_is_rejected(folder, text):
    (folder / "models.json").write_text(text)
    with pytest.raises(CascadeError, match=r"models\.json: .* segmenter"):
        find_model(SEGMENTER, folder)
