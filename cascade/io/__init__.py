"""Read slices from image, NIfTI and DICOM files, and write masks in the geometry of their source."""
