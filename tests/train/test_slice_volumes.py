"""A ball of tissue in a volume of anisotropic voxels is cut into slices."""

import nibabel
import numpy as np
import pytest
from PIL import Image

from cascade.errors import CascadeError
from train.slice_volumes import check_names, main, slices_of, write_slices


def ball(shape, spacing_mm, radius_mm=40.0):
    axes = [(np.arange(size) - (size - 1) / 2) * step for size, step in zip(shape, spacing_mm, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return (100.0 * (x**2 + y**2 + z**2 < radius_mm**2) + 10 * (x > 0)).astype(np.float32)


def test_slices_have_square_pixels_on_a_square_picture():
    spacing = (1.0, 2.0, 3.0)
    found = slices_of(ball((100, 50, 33), spacing), spacing, 5)
    assert {name[:-3] for name in found} == {"sagittal", "coronal", "axial"}
    assert len(found) == 15
    for picture in found.values():
        assert picture.size[0] == picture.size[1]
        bright = np.asarray(picture) > 128
        height, width = np.ptp(np.flatnonzero(bright.any(1))), np.ptp(np.flatnonzero(bright.any(0)))
        assert abs(height - width) <= 4  # a ball is round from every side


def test_thick_slices_are_not_cut_across():
    spacing = (0.9, 0.9, 7.0)
    assert {name[:-3] for name in slices_of(ball((100, 100, 15), spacing), spacing, 4)} == {"axial"}


def test_a_volume_becomes_pictures_named_after_it(tmp_path):
    spacing = (2.0, 2.0, 2.0)
    image = nibabel.Nifti1Image(ball((50, 50, 50), spacing), np.diag([*spacing, 1.0]))
    nibabel.save(image, tmp_path / "head.nii.gz")
    assert write_slices(tmp_path / "head.nii.gz", tmp_path / "out", 3) == 9
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len(written) == 9
    assert all(name.startswith("head-") for name in written)
    assert Image.open(tmp_path / "out" / written[0]).mode == "L"


def test_a_file_that_is_no_volume_is_refused_by_name(tmp_path):
    (tmp_path / "notes.nii.gz").write_text("no volume")
    with pytest.raises(CascadeError, match=r"notes\.nii\.gz: cannot be read as a volume"):
        write_slices(tmp_path / "notes.nii.gz", tmp_path, 3)


def test_two_volumes_whose_slices_would_have_the_same_names_are_refused(tmp_path):
    """Slices of the second volume overwrote those of the first."""
    with pytest.raises(CascadeError, match=r"a/t1\.nii\.gz and .*b/t1\.nii: their slices would have the same names"):
        check_names([tmp_path / "a" / "t1.nii.gz", tmp_path / "b" / "t1.nii"])
    check_names([tmp_path / "head.01.nii.gz", tmp_path / "head.02.nii.gz"])


def test_a_blank_volume_is_an_error_without_traceback(tmp_path, monkeypatch, capsys):
    """A blank volume raised IndexError, and every problem printed a traceback."""
    nibabel.save(nibabel.Nifti1Image(np.full((20, 20, 20), 7, np.int16), np.eye(4)), tmp_path / "blank.nii.gz")
    monkeypatch.setattr("sys.argv", ["healthy", str(tmp_path / "out"), str(tmp_path / "blank.nii.gz")])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    told = capsys.readouterr().err
    assert "blank.nii.gz: every voxel has the same value" in told
    assert "Traceback" not in told
