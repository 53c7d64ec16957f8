#!/usr/bin/env bash
# Train the shipped models: bash docs/recipes/shipped_models.sh data/ split.json heads/ external/
# DATA is the unpacked figshare data set, SPLIT its split file, HEADS a folder of slices of healthy heads,
# EXTERNAL a folder with an index.csv of slices of other scanners (docs/training.md), and a volumes.csv of whole heads
# (python -m train.calibrate_volumes --help).
set -euo pipefail
DATA=$1 SPLIT=$2 HEADS=$3 EXTERNAL=$4

# Segmenter, stage 1: 22 epochs from ImageNet weights. Stage 2: 26 epochs from the best weights of stage 1.
cascade train segmenter "$DATA" --split "$SPLIT" --out runs/segmenter-1 --epochs 22
cascade train segmenter "$DATA" --split "$SPLIT" --out runs/segmenter-2 --weights runs/segmenter-1/best.ckpt --epochs 26
cascade train export segmenter runs/segmenter-2 "$DATA" --split "$SPLIT" --models runs/models-2

# Stage 3: 7 epochs with slices of healthy heads.
cascade train segmenter "$DATA" --split "$SPLIT" --out runs/segmenter-3 --weights runs/models-2/segmenter.onnx \
  --epochs 7 --learning-rate 3e-4 --negatives "$HEADS"
cascade train export segmenter runs/segmenter-3 "$DATA" --split "$SPLIT" --models runs/models-3 --checkpoint last

# Stage 4: 8 epochs from the exported graph of stage 3. The mean of the weights of stages 2, 3 and 4 continues.
cascade train segmenter "$DATA" --split "$SPLIT" --out runs/segmenter-4 --weights runs/models-3/segmenter.onnx \
  --epochs 8 --learning-rate 8e-4 --negatives "$HEADS"
cascade train export segmenter runs/segmenter-4 "$DATA" --split "$SPLIT" --models runs/models-4 --checkpoint last \
  --average-with runs/models-3/segmenter.onnx --average-with runs/models-2/segmenter.onnx

# Stage 5: 2,400 steps with slices of other scanners. Two thirds of its weights and one third of stage 4 continue.
cascade train segmenter "$DATA" --split "$SPLIT" --out runs/segmenter-5 --weights runs/models-4/segmenter.onnx \
  --epochs 8 --epoch-slices 4800 --learning-rate 8e-4 --external "$EXTERNAL"
cascade train export segmenter runs/segmenter-5 "$DATA" --split "$SPLIT" --models runs/models-5 --checkpoint last \
  --average-with runs/segmenter-5/last.ckpt --average-with runs/models-4/segmenter.onnx --external "$EXTERNAL"

# Stage 6: 800 steps in which detection has a higher weight. The mean of its weights and of those it started from is measured.
cascade train segmenter "$DATA" --split "$SPLIT" --out runs/segmenter-6 --weights runs/models-5/segmenter.onnx \
  --epochs 4 --epoch-slices 3200 --learning-rate 4e-4 --seed 11 --detection-weight 2 --external "$EXTERNAL"
cascade train export segmenter runs/segmenter-6 "$DATA" --split "$SPLIT" --models runs/models-6 --checkpoint last \
  --average-with runs/models-5/segmenter.onnx --external "$EXTERNAL"

# Classifier, stages 1 to 3: 28 epochs from random weights, then 12 and 12 from the best weights of the stage before.
cascade train classifier "$DATA" --split "$SPLIT" --models runs/models-4 --out runs/classifier-1 --weights none --epochs 28
cascade train classifier "$DATA" --split "$SPLIT" --models runs/models-4 --out runs/classifier-2 \
  --weights runs/classifier-1/best.ckpt --learning-rate 5e-4 --epochs 12
cascade train classifier "$DATA" --split "$SPLIT" --models runs/models-4 --out runs/classifier-3 \
  --weights runs/classifier-2/best.ckpt --learning-rate 5e-4 --epochs 12

# Stages 4 and 5: 8 epochs, then 6 from their last weights with another seed. The mean of both continues.
cascade train export classifier runs/classifier-3 "$DATA" --split "$SPLIT" --models runs/models-4
cascade train classifier "$DATA" --split "$SPLIT" --models runs/models-4 --out runs/classifier-4 \
  --weights runs/models-4/classifier.onnx --learning-rate 5e-4 --epochs 8
cascade train classifier "$DATA" --split "$SPLIT" --models runs/models-4 --out runs/classifier-5 \
  --weights runs/classifier-4/last.ckpt --learning-rate 5e-4 --epochs 6 --seed 1
cascade train export classifier runs/classifier-4 "$DATA" --split "$SPLIT" --models runs/models-4 --checkpoint last \
  --average-with runs/classifier-5/last.ckpt

# Stage 6: 400 steps with slices of other scanners. The mean of its weights and of those it started from is measured.
cascade train classifier "$DATA" --split "$SPLIT" --models runs/models-5 --out runs/classifier-6 \
  --weights runs/models-4/classifier.onnx --learning-rate 5e-4 --epochs 4 --epoch-slices 3200 --seed 3 --external "$EXTERNAL"
cascade train export classifier runs/classifier-6 "$DATA" --split "$SPLIT" --models runs/models-6 --checkpoint last \
  --average-with runs/models-4/classifier.onnx
python -m train.calibrate_volumes runs/models-6 "$EXTERNAL/index.csv" "$EXTERNAL/volumes.csv"
cascade evaluate "$DATA" --split "$SPLIT" --models runs/models-6 --subset validation

# All patients: the last stages once more, with nobody held out and the thresholds measured above.
cascade data split "$DATA" --out all.json --train-on-all
sed -E 's/,(validation|test)(,|\r?$)/,train\2/' "$EXTERNAL/index.csv" > "$EXTERNAL/all.csv"
cascade train segmenter "$DATA" --split all.json --out runs/segmenter-all --weights runs/models-4/segmenter.onnx \
  --epochs 8 --epoch-slices 4800 --learning-rate 8e-4 --seed 5 --external "$EXTERNAL/all.csv"
cascade train export segmenter runs/segmenter-all "$DATA" --split all.json --models runs/models-all --checkpoint last \
  --average-with runs/segmenter-5/last.ckpt --average-with runs/models-4/segmenter.onnx --thresholds-of runs/models-6
cascade train segmenter "$DATA" --split all.json --out runs/segmenter-all-6 --weights runs/models-all/segmenter.onnx \
  --epochs 4 --epoch-slices 3200 --learning-rate 4e-4 --seed 12 --detection-weight 2 --external "$EXTERNAL/all.csv"
cascade train export segmenter runs/segmenter-all-6 "$DATA" --split all.json --models runs/models-10 --checkpoint last \
  --average-with runs/models-all/segmenter.onnx --thresholds-of runs/models-6
cascade train classifier "$DATA" --split all.json --models runs/models-10 --out runs/classifier-all \
  --weights runs/models-4/classifier.onnx --learning-rate 5e-4 --epochs 5 --epoch-slices 3200 --seed 7 --external "$EXTERNAL/all.csv"
cascade train export classifier runs/classifier-all "$DATA" --split all.json --models runs/models-10 --checkpoint last \
  --average-with runs/models-4/classifier.onnx --thresholds-of runs/models-6

# Cross-validation of the last stage, from the models of stage 4: they know the training patients and no external subject.
cascade train crossval "$DATA" --split "$SPLIT" --out runs/crossval --folds 3 --keep-train --external "$EXTERNAL" \
  --segmenter-epochs 6 --classifier-epochs 2 --detection-only --checkpoint last \
  --segmenter-weights runs/models-4/segmenter.onnx --classifier-weights runs/models-4/classifier.onnx
for fold in 0 1 2; do
  python -m train.calibrate_volumes "runs/crossval/fold-$fold/models" "$EXTERNAL/index.csv" "$EXTERNAL/volumes.csv" \
    --subjects-of "runs/crossval/fold-$fold/external.csv"
done

# Last stage on all patients: 800 steps of the detection alone, twice, and 152 of the classifier.
cascade train segmenter "$DATA" --split all.json --out runs/detection-all --weights runs/models-10/segmenter.onnx \
  --detection-only --epochs 4 --epoch-slices 3200 --seed 22 --external "$EXTERNAL/all.csv"
cascade train segmenter "$DATA" --split all.json --out runs/detection-all-2 --weights runs/models-10/segmenter.onnx \
  --detection-only --epochs 4 --epoch-slices 3200 --seed 24 --external "$EXTERNAL/all.csv"
cascade train export segmenter runs/detection-all-2 "$DATA" --split all.json --models models --checkpoint last \
  --average-with runs/detection-all/last.ckpt \
  --thresholds-of runs/crossval/fold-0/models --thresholds-of runs/crossval/fold-1/models \
  --thresholds-of runs/crossval/fold-2/models
cascade train classifier "$DATA" --split all.json --models models --out runs/classifier-all-2 --seed 23 \
  --weights runs/models-10/classifier.onnx --learning-rate 7e-4 --epochs 2 --external "$EXTERNAL/all.csv"
cascade train export classifier runs/classifier-all-2 "$DATA" --split all.json --models models --checkpoint last \
  --thresholds-of runs/crossval/fold-0/models --thresholds-of runs/crossval/fold-1/models \
  --thresholds-of runs/crossval/fold-2/models
