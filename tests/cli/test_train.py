"""`cascade train`: its options become the settings of a training, and what is missing is named."""

import sys

import pytest

from cascade.cli import main


def run(*arguments):
    """The exit code."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return stopped.value.code


def test_options_that_are_given_replace_the_settings_and_the_others_keep_their_defaults(tmp_path, monkeypatch):
    segmenter = pytest.importorskip("train.segmenter", reason="pip install 'cascade-mri[train]'")
    taken = []
    monkeypatch.setattr(segmenter, "train_segmenter", lambda *arguments, **options: taken.append(arguments[3]))
    command = ["train", "segmenter", tmp_path, "--split", tmp_path / "split.json"]
    options = ("--detection-weight", 2, "--learning-rate", 4e-4, "--epoch-slices", 3200)
    assert run(*command, *options) == 0
    changed = segmenter.SegmenterSettings(detection=2.0, learning_rate=4e-4, epoch_slices=3200)
    assert taken == [changed]
    assert changed != segmenter.SegmenterSettings()


def test_the_fix_for_training_without_its_packages_is_the_extra(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "train.segmenter", None)
    assert run("train", "segmenter", tmp_path, "--split", tmp_path / "split.json") == 1
    assert "pip install 'cascade-mri[train]'" in capsys.readouterr().err


def test_only_known_models_are_exported(tmp_path, capsys):
    arguments = ("train", "export", "detector", tmp_path, tmp_path, "--split", tmp_path, "--models", tmp_path)
    assert run(*arguments) == 1
    assert "give segmenter or classifier" in capsys.readouterr().err
