#!/usr/bin/env bash
# `thin-17m-4bit`, from nothing, on one CPU core in about an hour and a half; then `thin-17m-4bit-70`, whose float network
# learns from four teachers, in another hour and a half. Resumable (run it again).
#
#     bash docs/record/cpu.sh [DIRECTORY]
#
# A wide network of 122M MACs, the float network and the bundled 6-bit one teach together (the mean of their logits: 91 % each,
# 92.8 % together on validation).
# Where it says `bundled`, the entries had thin-22m-6bit; that file does not say which images it saw, so it may no longer
# teach. The bundled teacher (93.9 %) stands in its place.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-studies/record-cpu}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
mkdir -p "$out"

uv run contest train thin:stem_width=32,widths=96-192-256,depths=1-2-1,strides=2-2-2 \
    --train epochs=18,learning_rate=0.2,batch_size=128,schedule=onecycle,ema_decay=0.998,weight_decay=0.0005 \
    --directory "$out/teacher" --out "$out/teacher.pt"
uv run contest train docs/record/thin-17m-float.json --directory "$out/thin-17m" --out "$out/thin-17m-float.pt"

teachers=(--teacher "$out/teacher.pt" --teacher "$out/thin-17m-float.pt" --teacher bundled)
mkdir -p "$out/thin-17m-4bit"
cp -n "$out/thin-17m/train.ckpt" "$out/thin-17m-4bit/"  # the same float training
uv run contest train docs/record/thin-17m-4bit.json --directory "$out/thin-17m-4bit" "${teachers[@]}" \
    --out "$out/thin-17m-4bit.pt"
uv run contest score "$out/thin-17m-4bit.pt"

# The float network once more, three times as long and taught; then 4 bits and 70 % zeros.
mkdir -p "$out/thin-17m-4bit-70"
long=("${teachers[@]}" --teacher "$out/thin-17m-4bit.pt")
uv run contest train docs/record/thin-17m-float-160.json --directory "$out/thin-17m-float-160" "${long[@]}" \
    --out "$out/thin-17m-float-160.pt"
cp -n "$out/thin-17m-float-160/train.ckpt" "$out/thin-17m-4bit-70/"
uv run contest train docs/record/thin-17m-4bit-70.json --directory "$out/thin-17m-4bit-70" "${teachers[@]}" \
    --out "$out/thin-17m-4bit-70.pt"
uv run contest score "$out/thin-17m-4bit-70.pt"
