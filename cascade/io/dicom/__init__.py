"""Read DICOM series as volumes, and write masks as DICOM segmentations.

Terms: a file has one or several frames. Files of one DICOM series with equal orientation and size form a volume, whose
slices are its frames in their order in space.
"""
