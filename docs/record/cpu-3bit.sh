#!/usr/bin/env bash
# `inverted-8m-3bit`, 90.51 % on the test set at 0.00355, from nothing, on one CPU core with bf16 in about three hours:
# a teacher (35 minutes), a float parent (56), and the quantised network on all 50,000 images (72 where nobody else uses
# the core). Resumable (run it again). `inverted-8m-float.ckpt` and `fast-teacher.pt` of this package are the first two
# steps' results, the teacher's weights rounded to 8 bits; the third was run from these. One seed each.
#
#     bash docs/record/cpu-3bit.sh [DIRECTORY]
#
# EPOCHS=2 bash docs/record/cpu-3bit.sh is a short run that shows that the script is whole: every training has so many
# epochs, and the last two have two of answers.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-studies/record-3bit}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
mkdir -p "$out"

uv run contest train fast-teacher --train "epochs=${EPOCHS:-12},label_smoothing=0" \
    --directory "$out/teacher" --out "$out/teacher.pt"
parent=epochs=${EPOCHS:-70},learning_rate=0.12,batch_size=128,schedule=cosine,warmup_epochs=2,ema_decay=0.999
parent+=,weight_decay=0.0003,distillation=0.9,temperature=3,taught_epochs=${EPOCHS:-8}
uv run contest train thin:block=inverted,expansion=4,stem_width=16,widths=24-60,depths=2-3,strides=2-2 \
    --train "$parent" --teacher "$out/teacher.pt" --directory "$out/float" --out "$out/float.pt"
uv run contest train docs/record/inverted-8m-3bit.json --all-images --start "$out/float/train.ckpt" \
    --tune "epochs=${EPOCHS:-80},taught_epochs=${EPOCHS:-16}" --teacher "$out/teacher.pt" \
    --directory "$out/3bit" --out "$out/inverted-8m-3bit.pt"
uv run contest score "$out/inverted-8m-3bit.pt"
