#!/usr/bin/env bash
# The record search on a GPU: hours instead of the CPU's single hour. One command, resumable (run it again).
#
#     bash docs/record/gpu.sh [STUDY_DIRECTORY] [extra options of contest search]
#
# 60 candidates of 30 epochs, a teacher of 200 epochs for the soft labels, the 5 best trained for 300 epochs with 3 seeds
# each, then rounds of variants with fewer bits and more zeros while they stay above 90 % on validation.
set -euo pipefail
cd "$(dirname "$0")/../.."
study=${1:-studies/record}
shift || true
resume=()
if [ -f "$study/study.json" ]; then resume=(--resume); fi
exec uv run contest search --study "$study" "${resume[@]}" --space docs/record/space.toml --trials 60 --epochs 30/300 \
    --teacher-epochs 200 --seeds 3 --finalists 5 --variants 6 --workers 4 --device cuda "$@"
