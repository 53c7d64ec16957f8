"""NRRD and MetaImage are read as NIfTI of the same volume: same slices, and a mask at the same place in the patient."""

from __future__ import annotations

import gzip
import pickle
import subprocess
import sys

import nibabel
import numpy as np
import pytest

from cascade.discovery.filters import FORMATS
from cascade.discovery.inputs import find_slices
from cascade.errors import CascadeError
from cascade.io.itk import open_itk
from cascade.io.nifti import open_nifti
from cascade.io.nifti_header import NO_ORIENTATION
from cascade.io.open import open_source, open_sources

sitk = pytest.importorskip("SimpleITK", reason="pip install 'cascade-mri[formats]'")

HEAD = np.random.default_rng(0).integers(1, 1000, (18, 24, 20)).astype(np.int16)  # in the order of ITK: z, y, x
MARKER = (5, 17, 3)
HEAD[MARKER] = 4000
SUFFIXES = ["nrrd", "nhdr", "mha", "mhd"]
OBLIQUE = [0.96, -0.28, 0.0, 0.28, 0.96, 0.0, 0.0, 0.0, 1.0]
SAGITTAL = [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0]
IDENTITY = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]


def image(array=HEAD, directions=IDENTITY):
    volume = sitk.GetImageFromArray(array)
    volume.SetSpacing((0.8, 0.9, 1.5))
    volume.SetOrigin((-70, -100, -30))
    volume.SetDirection(directions)
    return volume


def written(folder, name="a.mha", array=HEAD, *, compressed=False, **options):
    sitk.WriteImage(image(array, **options), str(folder / name), useCompression=compressed)
    return folder / name


def opened(*paths, **options):
    return open_sources(find_slices(paths, formats=FORMATS, **options))


def changed(path, old, new):
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    return path


@pytest.mark.parametrize("directions", [IDENTITY, OBLIQUE, SAGITTAL], ids=["axial", "oblique", "sagittal"])
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("compressed", [False, True])
def test_slices_and_the_place_of_the_mask_are_those_of_nifti(tmp_path, suffix, directions, compressed):
    source = open_itk(written(tmp_path, f"a.{suffix}", directions=directions, compressed=compressed), "a")
    nifti = open_nifti(written(tmp_path, "b.nii", directions=directions), "b.nii")
    assert (source.count, source.notes) == (nifti.count, ())
    assert source.slab_mm == pytest.approx(nifti.slab_mm)
    for index in range(source.count):
        assert np.array_equal(source.read(index).pixels, nifti.read(index).pixels)
        assert source.read(index).spacing_mm == pytest.approx(nifti.read(index).spacing_mm)
    masks = np.stack([source.read(index).pixels == 4000 for index in range(source.count)])
    (tmp_path / "mask.nii.gz").write_bytes(source.mask_bytes(masks))
    mask = sitk.ReadImage(str(tmp_path / "mask.nii.gz"))
    (index,) = np.argwhere(sitk.GetArrayFromImage(mask))
    place = mask.TransformIndexToPhysicalPoint([int(number) for number in index[::-1]])
    assert place == pytest.approx(image(directions=directions).TransformIndexToPhysicalPoint(MARKER[::-1]), abs=1e-3)
    of_nifti = nibabel.Nifti1Image.from_bytes(gzip.decompress(nifti.mask_bytes(masks)))
    assert np.allclose(nibabel.load(tmp_path / "mask.nii.gz").affine, of_nifti.affine, atol=1e-4)


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "i8", "f4", "f8"])
@pytest.mark.parametrize("suffix", ["nrrd", "mha"])
def test_all_types_of_numbers_are_read(tmp_path, suffix, kind):
    array = (HEAD % 100).astype(kind)
    source = open_itk(written(tmp_path, f"a.{suffix}", array), "a")
    assert np.array_equal(np.sort(source.read(4).pixels.ravel()), np.sort(array[4].ravel()))


def test_nrrd_of_slicer_in_another_space_is_placed_as_it_says(tmp_path):
    source = open_itk(written(tmp_path, "a.nrrd"), "a")
    ras = written(tmp_path, "b.nrrd")
    changed(ras, b"space: left-posterior-superior", b"space: right-anterior-superior")
    turned = open_itk(ras, "b")
    assert np.array_equal(turned.read(3).pixels, source.read(3).pixels[::-1, ::-1])


@pytest.mark.parametrize("names", [["a.mhd"], ["a.mhd", "a.raw"], ["."]])
def test_a_header_and_its_voxels_are_one_input(tmp_path, names):
    written(tmp_path, "a.mhd")
    sources, problems, left_out = opened(*(tmp_path / name for name in names))
    assert [source.name for source in sources] == ["a.mhd"]
    assert sources[0].files == (tmp_path / "a.mhd", tmp_path / "a.raw")
    assert problems == left_out == {}


@pytest.mark.parametrize("suffix", ["mhd", "nhdr"])
def test_a_header_may_name_the_file_beside_it_with_its_folder(tmp_path, suffix):
    expected = open_itk(written(tmp_path, f"b.{suffix}"), "b").read(3).pixels
    path = written(tmp_path, f"a.{suffix}")
    changed(path, b"a.raw", b"./a.raw")
    assert np.array_equal(open_itk(path, "a").read(3).pixels, expected)


@pytest.mark.parametrize("elsewhere", [b"/etc/passwd", b"../a.raw", b"b/a.raw", b"LIST", b"gone.raw"])
@pytest.mark.parametrize("suffix", ["mhd", "nhdr"])
def test_a_header_cannot_name_a_file_elsewhere(tmp_path, suffix, elsewhere):
    """A header from a stranger could copy any file of this machine into an overlay."""
    (tmp_path / "c" / "b").mkdir(parents=True)
    path = written(tmp_path / "c", f"a.{suffix}")
    for folder in (tmp_path, tmp_path / "c" / "b"):
        (folder / "a.raw").write_bytes((tmp_path / "c" / "a.raw").read_bytes())
    changed(path, b"a.raw", elsewhere)
    with pytest.raises(CascadeError, match="no file beside it"):
        open_itk(path, "a")


@pytest.mark.parametrize(("suffix", "comment"), [("mhd", b"Comment%d = %d\n"), ("nhdr", b"# comment %d %d\n")])
def test_a_header_cannot_hide_the_name_behind_many_comments(tmp_path, suffix, comment):
    """Once, ITK read on where cascade had stopped to look for the name."""
    (tmp_path / "c").mkdir()
    path = written(tmp_path / "c", f"a.{suffix}")
    (tmp_path / "c" / "a.raw").rename(tmp_path / "elsewhere.raw")
    comments = b"".join(comment % (number, number) for number in range(5000))
    key = b"ElementDataFile = " if suffix == "mhd" else b"data file: "
    changed(path, key + b"a.raw", comments + key + bytes(tmp_path / "elsewhere.raw"))
    with pytest.raises(CascadeError, match=rf"a\.{suffix}"):
        open_itk(path, "a").read(0)


def test_a_volume_is_recognized_by_its_content(tmp_path):
    for suffix in ("nrrd", "mha"):
        path = written(tmp_path, f"a.{suffix}").rename(tmp_path / "a.nii")
        assert open_source(path).count == 18


def test_a_header_without_orientation_gets_a_note(tmp_path):
    path = changed(written(tmp_path), b"TransformMatrix = 1 0 0 0 1 0 0 0 1\n", b"")
    assert "left and right" in open_itk(path, "a").notes[0]
    assert "left and right" not in str(open_itk(written(tmp_path), "a").notes)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_texts_that_simpleitk_copied_from_dicom_do_not_matter(tmp_path, suffix):
    """Once, the umlaut of a name was a damaged header, and the blank line of a comment ended it."""
    path = written(tmp_path, f"a.{suffix}")
    expected = open_itk(path, "a").read(5).pixels
    if suffix in ("mha", "mhd"):
        comment = b"0010|0010 = M\xfcller\n0020|4000 = one\r\n\r\nthree\nthree\n0028|0002 = 1\n"
        changed(path, b"DimSize", comment + b"DimSize")
    else:
        changed(path, b"endian", b"0010|0010:=M\xfcller\nendian")
    ((source,), problems, _) = opened(path)
    assert np.array_equal(source.read(5).pixels, expected)
    assert (problems, source.notes) == ({}, ())


@pytest.mark.parametrize(
    ("suffix", "field", "spacing_mm", "slab_mm"),
    [
        ("mha", "ElementSpacing = 0.8 0.9 1.5", (0.9, 0.8), 1.5),
        ("mha", "ElementSize = 0.8 0.9 1.5", (0.9, 0.8), 1.5),
        ("mha", "Comment = none", None, None),
        ("nrrd", "spacings: 0.8 0.9 1.5", (0.9, 0.8), 1.5),
        ("nrrd", "spacings: 0.8 0.9 nan", (0.9, 0.8), None),
        ("nrrd", "a:1:=text\na:2:=text\nspacings:=text\nspacings: 0.8 0.9 1.5", (0.9, 0.8), 1.5),
        ("nrrd", "space dimension: 3\nspace directions: (0.8, 0, 0) (0, 0.9, 0) (0, 0, 1.5)", (0.9, 0.8), 1.5),
        ("nrrd", "space dimension: 3\nspace directions: (0.8, 0, 0) (0, 0.9, 0) none", (0.9, 0.8), None),
        ("nrrd", "content: none", None, None),
    ],
)
def test_a_voxel_size_that_the_header_does_not_give_is_unknown_and_noted(tmp_path, suffix, field, spacing_mm, slab_mm):
    """ITK reads 1 mm there. Once, the tumor had a volume in milliliters nevertheless."""
    header = {
        "mha": f"ObjectType = Image\nNDims = 3\n{field}\nDimSize = 20 24 18\nElementType = MET_SHORT\n"
        "BinaryDataByteOrderMSB = False\nElementDataFile = LOCAL\n",
        "nrrd": f"NRRD0004\ntype: int16\ndimension: 3\nsizes: 20 24 18\n{field}\nencoding: raw\nendian: little\n\n",
    }
    (tmp_path / "a").write_bytes(header[suffix].encode() + HEAD.tobytes())
    source = open_itk(tmp_path / "a", "a")
    assert source.read(5).spacing_mm == (spacing_mm and pytest.approx(spacing_mm))
    assert source.slab_mm == (slab_mm and pytest.approx((slab_mm,) * 18))
    assert any("no valid voxel size along axis" in note for note in source.notes) == (slab_mm is None)


def test_an_orientation_without_voxel_size_is_kept(tmp_path):
    path = written(tmp_path, directions=OBLIQUE)
    (field,) = [line for line in path.read_bytes().split(b"\n") if line.startswith(b"ElementSpacing")]
    source = open_itk(changed(path, field + b"\n", b""), "a")
    (note,) = source.notes
    assert "axis 0 and 1 and 2" in note
    (tmp_path / "mask.nii.gz").write_bytes(source.mask_bytes(np.zeros((18, 24, 20), bool)))
    mask, volume = sitk.ReadImage(str(tmp_path / "mask.nii.gz")), sitk.ReadImage(str(path))
    assert mask.GetDirection() == pytest.approx(volume.GetDirection(), abs=1e-6)
    assert (mask.GetSpacing(), mask.GetOrigin()) == (volume.GetSpacing(), pytest.approx(volume.GetOrigin()))


def test_a_single_slice_of_two_axes_is_read(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(HEAD[5]), str(tmp_path / "a.mha"))
    source = open_itk(tmp_path / "a.mha", "a.mha")
    assert (source.count, source.slab_mm) == (1, None)
    assert np.array_equal(np.sort(source.read(0).pixels.ravel()), np.sort(HEAD[5].ravel()))


@pytest.mark.parametrize("kind", ["mha", "nrrd", "nrrd list"])
def test_a_fourth_axis_of_one_element_is_ignored(tmp_path, kind):
    """Once, a file of one volume was refused with the advice to save one volume per file."""
    path = tmp_path / f"a.{kind.split()[0]}"
    if kind == "nrrd list":  # as Slicer writes a sequence
        written(tmp_path, path.name, directions=OBLIQUE)
        for old, new in ((b"n: 3", b"n: 4"), (b"0 24 18", b"0 24 18 1"), (b"\nkinds:", b" none\nkinds: list")):
            changed(path, old, new)
        changed(path, b"list domain domain domain", b"domain domain domain list")
    else:
        sitk.WriteImage(sitk.JoinSeries([image(directions=OBLIQUE)]), str(path))
    source, volume = open_itk(path, "a"), open_itk(written(tmp_path, "b.mha", directions=OBLIQUE), "b")
    assert (source.count, source.notes) == (18, (NO_ORIENTATION,) if kind == "nrrd" else ())  # ITK names no space then
    assert np.array_equal(source.read(5).pixels, volume.read(5).pixels)
    assert np.allclose(source.affine, volume.affine)
    assert source.slab_mm == pytest.approx(volume.slab_mm)


@pytest.mark.parametrize("suffix", ["nrrd", "mha"])
def test_color_and_series_are_refused_with_the_reason(tmp_path, suffix):
    path = str(tmp_path / f"a.{suffix}")
    sitk.WriteImage(sitk.GetImageFromArray(np.stack([HEAD] * 3, axis=-1), isVector=True), path)
    with pytest.raises(CascadeError, match=r"color|4 axes"):
        open_itk(tmp_path / f"a.{suffix}", "a")
    sitk.WriteImage(sitk.GetImageFromArray(np.stack([HEAD] * 3), isVector=False), path)
    with pytest.raises(CascadeError, match="4 axes"):
        open_itk(tmp_path / f"a.{suffix}", "a")


@pytest.mark.parametrize(
    ("suffix", "old", "new"),
    [
        ("mha", b"DimSize = 20 24 18", b"DimSize = 20 24 19"),
        ("mha", b"DimSize = 20 24 18", b"DimSize = 20000 24000 18000"),
        ("mha", b"DimSize = 20 24 18", b"DimSize = 20 24 -18"),
        ("mha", b"DimSize = 20 24 18", b"DimSize = 99999999999999999999 24 18"),
        ("mha", b"NDims = 3", b"NDims = 300"),
        ("mha", b"MET_SHORT", b"MET_OTHER"),
        ("mha", b"ElementSpacing = 0.8", b"ElementSpacing = 8e-9"),
        ("nrrd", b"sizes: 20 24 18", b"sizes: 20 24 19"),
        ("nrrd", b"sizes: 20 24 18", b"sizes: 20000 24000 18000"),
        ("nrrd", b"sizes: 20 24 18", b"sizes: 20 24 -18"),
        ("nrrd", b"type: short", b"type: block"),
        ("nrrd", b"dimension: 3", b"dimension: 16"),
    ],
)
def test_a_false_header_is_refused(tmp_path, suffix, old, new, capfd):
    path = changed(written(tmp_path, f"a.{suffix}"), old, new)
    with pytest.raises(CascadeError, match=rf"a\.{suffix}"):
        open_itk(path, "a").read(0)
    assert capfd.readouterr().err == ""


def test_a_compressed_file_that_is_cut_is_refused_and_does_not_allocate_what_it_declares(tmp_path):
    path = written(tmp_path, "a.mha", compressed=True)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(CascadeError, match=r"a\.mha"):
        open_itk(path, "a").read(0)
    path = written(tmp_path, "a.mha", compressed=True)
    size = path.read_bytes().partition(b"CompressedDataSize = ")[2].split(b"\n")[0]
    changed(path, b"CompressedDataSize = " + size, b"CompressedDataSize = 999999999999999")
    with pytest.raises(CascadeError, match=r"a\.mha"):
        open_itk(path, "a")


def test_without_simpleitk_the_fix_names_the_extra(tmp_path, monkeypatch):
    path = written(tmp_path)
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(CascadeError, match="SimpleITK") as raised:
        open_itk(path, "a.mha")
    assert "cascade-mri[formats]" in raised.value.fix


def test_simpleitk_is_loaded_for_such_a_file_only(tmp_path):
    written(tmp_path, "a.nii")
    code = (
        "import sys, pathlib; from cascade.io.open import open_source;"
        f"open_source(pathlib.Path({str(tmp_path / 'a.nii')!r})).read(0); print('SimpleITK' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "False"


def test_a_volume_travels_to_another_process(tmp_path):
    source = open_itk(written(tmp_path), "a.mha")
    assert np.array_equal(pickle.loads(pickle.dumps(source)).read(3).pixels, source.read(3).pixels)


def test_a_file_that_lacks_the_last_voxels_is_refused(tmp_path):
    for suffix in ("mha", "nrrd"):
        path = written(tmp_path, f"a.{suffix}")
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(CascadeError, match=rf"a\.{suffix}"):
            open_itk(path, "a").read(0)


def test_damaged_files_do_not_crash_the_process(tmp_path):
    """ITK alone ends in a segmentation fault for a header of 300 axes."""
    random = np.random.default_rng(0)
    wholes = {suffix: written(tmp_path, f"whole.{suffix}").read_bytes() for suffix in ("mha", "nrrd")}
    paths = []
    for number in range(300):
        suffix = ("mha", "nrrd")[number % 2]
        damaged = bytearray(wholes[suffix])
        for place in random.integers(400, size=2):
            damaged[place] = random.choice([0, 10, 32, 45, 48, 57, 255])
        paths.append(tmp_path / f"{number}.{suffix}")
        paths[-1].write_bytes(damaged)
    code = """if True:
        import pathlib, sys
        from cascade.errors import CascadeError
        from cascade.io.itk import open_itk
        for path in sys.argv[1:]:
            try:
                open_itk(pathlib.Path(path), "a").read(0)
            except CascadeError as error:
                assert path in error.problem
        print("done")
    """
    ended = subprocess.run([sys.executable, "-c", code, *map(str, paths)], capture_output=True, text=True, check=False)
    assert ended.stdout == "done\n", ended.stderr[-2000:]


@pytest.mark.parametrize("space", ["3D-right-handed", "scanner-xyz", None])
def test_a_nrrd_whose_space_does_not_say_where_left_is_has_a_note(tmp_path, space):
    path = written(tmp_path, "a.nrrd")
    assert open_itk(path, "a").notes == ()
    changed(path, b"space: left-posterior-superior", b"space: " + space.encode() if space else b"space dimension: 3")
    assert open_itk(path, "a").notes == (NO_ORIENTATION,)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("a.nrrd", b"\nkinds:", b'\nspace units: "cm" "cm" "cm"\nkinds:'),
        ("a.mha", b"\nNDims", b"\nDistanceUnits = cm\nNDims"),
    ],
)
def test_lengths_that_are_not_in_millimeters_are_refused(tmp_path, name, old, new):
    """ITK ignores the unit: volumes were a thousandth of what they are."""
    path = written(tmp_path, name)
    changed(path, old, new)
    with pytest.raises(CascadeError, match="gives lengths in 'cm'"):
        open_itk(path, "a")
    path.write_bytes(path.read_bytes().replace(b"cm", b"mm"))
    assert open_itk(path, "a").count == 18
