#!/usr/bin/env bash
# `inverted-7m-3bit`, 90.54 % on the test set at 0.00308, from nothing, on one CPU core with bf16 in about three hours: a
# teacher (35 minutes), its answers to 16 augmented epochs (16), a float parent on all 50,000 images (69), and the
# quantised network on all of them (66). Resumable (run it again). `fast-teacher.pt` and `inverted-7m-3bit-float.ckpt` of
# this package are the first steps' results, the teacher's weights rounded to 8 bits; the others were run from it. One
# seed each.
#
#     bash docs/record/cpu-wide.sh [DIRECTORY]
#
# EPOCHS=2 bash docs/record/cpu-wide.sh is a short run that shows that the script is whole: every training has so many
# epochs, and the last two have two of answers.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-studies/record-wide}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
mkdir -p "$out"

uv run contest train fast-teacher --train "epochs=${EPOCHS:-12},label_smoothing=0" \
    --directory "$out/teacher" --out "$out/teacher.pt"
answers=(--teacher "$out/teacher.pt" --teacher-cache "$out/answers")
parent=epochs=${EPOCHS:-70},learning_rate=0.12,batch_size=128,schedule=cosine,warmup_epochs=2,ema_decay=0.999
parent+=,weight_decay=0.0003,distillation=0.9,temperature=3,taught_epochs=${EPOCHS:-16}
network=thin:block=inverted,expansion=4,stem_width=16,widths=24-48,depths=2-4,strides=2-2,opposites=first,shortcut=pool
uv run contest train "$network" --all-images --train "$parent" "${answers[@]}" \
    --directory "$out/float" --out "$out/float.pt"
uv run contest train docs/record/inverted-7m-3bit.json --all-images --start "$out/float/train.ckpt" \
    --tune "epochs=${EPOCHS:-44},taught_epochs=${EPOCHS:-16}" "${answers[@]}" \
    --directory "$out/3bit" --out "$out/inverted-7m-3bit.pt"
uv run contest score "$out/inverted-7m-3bit.pt"
