"""The options of `cascade train` become the settings of a training."""

import pytest

from cascade.cli import main

segmenter = pytest.importorskip("train.segmenter", reason="pip install 'cascade-mri[train]'")


def test_options_that_are_given_replace_the_settings_and_the_others_keep_their_defaults(tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr(segmenter, "train_segmenter", lambda *arguments, **options: taken.append(arguments[3]))
    command = ["train", "segmenter", str(tmp_path), "--split", str(tmp_path / "split.json")]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--detection-weight", "2", "--learning-rate", "4e-4", "--epoch-slices", "3200"])
    assert ended.value.code == 0
    changed = segmenter.SegmenterSettings(detection=2.0, learning_rate=4e-4, epoch_slices=3200)
    assert taken == [changed]
    assert changed != segmenter.SegmenterSettings()
