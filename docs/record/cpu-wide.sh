#!/usr/bin/env bash
# `inverted-7m-3bit` from nothing: `cpu-3bit.sh` (three hours of one CPU core with bf16), then its last 1x1 convolution goes to
# the classifier (`tail=wide`), zeros rise from 40 to 50 %, and 30 epochs on all 50,000 images (25 minutes) follow. Resumable
# (run it again). The last step was run from the training of `inverted-8m-3bit`. One seed each.
#
#     bash docs/record/cpu-wide.sh [DIRECTORY]
#
# EPOCHS=2 bash docs/record/cpu-wide.sh is a short run that shows that the script is whole: every training has so many
# epochs.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-studies/record-wide}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

bash docs/record/cpu-3bit.sh "$out"
uv run contest train docs/record/inverted-7m-3bit.json --all-images --start "$out/3bit/tune.ckpt" \
    --tune "epochs=${EPOCHS:-30},taught_epochs=${EPOCHS:-16}" --teacher "$out/teacher.pt" \
    --directory "$out/wide" --out "$out/inverted-7m-3bit.pt"
uv run contest score "$out/inverted-7m-3bit.pt"
