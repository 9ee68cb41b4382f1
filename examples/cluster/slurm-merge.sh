#!/bin/bash
# Joins the shards of slurm-array.sh when all of them are done:
#
#   sbatch --dependency=afterok:JOBID slurm-merge.sh --heldout heldout.jsonl
#
# What stands behind the script's name goes to `synth merge`.
#SBATCH --job-name=synth-merge
#SBATCH --cpus-per-task=2
#SBATCH --mem=32G
#SBATCH --time=04:00:00
#SBATCH --output=synth-merge-%j.log
set -euo pipefail
: "${SHARDS:?the number of shards}" "${RUNS:?the folder of the runs}"

shards=()
for ((i = 0; i < SHARDS; i++)); do
    shards+=("$RUNS/shard-$i")
done
exec synth merge "${shards[@]}" --run "$RUNS/merged" "$@"
