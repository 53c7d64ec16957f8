"""The SOP classes and attributes of DICOM that cascade knows."""

FUNCTIONAL_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
"""The attributes that describe the frames of a multi-frame file: all together, and one by one."""

MR = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR = frozenset({"1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4"})  # native and legacy-converted
DIRECTORY = "1.2.840.10008.1.3.10"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
SECONDARY_CAPTURES = frozenset({"1.2.840.10008.5.1.4.1.1.7.2", "1.2.840.10008.5.1.4.1.1.7.3"})  # multi-frame, gray

MULTI_FRAME = ENHANCED_MR | SECONDARY_CAPTURES | {MR}
"""SOP classes whose files may have several frames. MR images should not, but some programs write them like that."""

IDENTIFIERS = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
"""The elements of patient and study that each DICOM file must have, though they may be empty."""

CONTRAST_ATTRIBUTES = {
    "EchoTime": "",
    "EchoNumbers": "",
    "InversionTime": "",
    "FlipAngle": "MRTimingAndRelatedParametersSequence",
    "TemporalPositionIdentifier": "",
    "TemporalPositionIndex": "FrameContentSequence",
    "TriggerTime": "",
    "AcquisitionNumber": "",
    "FrameAcquisitionNumber": "FrameContentSequence",
    "EffectiveEchoTime": "MREchoSequence",
    "DiffusionBValue": "MRDiffusionSequence",
    "ImageType": "",
    "FrameType": "MRImageFrameTypeSequence",
}
"""The attributes that may differ between several frames at one position, and their functional groups."""

KEYWORDS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "PatientID",
    "Modality",
    "ImageType",
    "SeriesNumber",
    "InstanceNumber",
    "NumberOfFrames",
    *FUNCTIONAL_GROUPS,
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "FloatPixelPaddingValue",
    "FloatPixelPaddingRangeLimit",
    "DoubleFloatPixelPaddingValue",
    "DoubleFloatPixelPaddingRangeLimit",
    "RescaleSlope",
    "RescaleIntercept",
    "LossyImageCompression",
    "BurnedInAnnotation",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "ContrastBolusAgent",
    "ContrastBolusAgentSequence",
    *CONTRAST_ATTRIBUTES,
)
"""The elements that are read from a header."""
