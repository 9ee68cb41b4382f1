#!/bin/bash
# One shard a task. Submit with the number of shards in SHARDS and in --array (a part of the array may be
# submitted again, so the number cannot be read from it):
#
#   export SHARDS=8 DOCS=manuals TEACHER=Qwen/Qwen3-32B RUNS=runs/manuals
#   sbatch --array=0-$((SHARDS - 1)) slurm-array.sh --heldout heldout.jsonl --config synth.toml
#
# What stands behind the script's name goes to `synth generate`.
#SBATCH --job-name=synth
#SBATCH --nodes=1
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --output=synth-%A-%a.log
# Five minutes before the end the calls in flight are finished; submitting the task again goes on from there.
#SBATCH --signal=B:TERM@300
set -euo pipefail
: "${SHARDS:?the number of shards}" "${DOCS:?a folder of documents}" "${TEACHER:?a model or a URL}" "${RUNS:?a folder for the runs}"

# exec: the signal of Slurm has to reach synth, not this shell.
exec synth generate "$DOCS" --teacher "$TEACHER" \
    --shard "$SLURM_ARRAY_TASK_ID/$SHARDS" --run "$RUNS/shard-$SLURM_ARRAY_TASK_ID" "$@"
