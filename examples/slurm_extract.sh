#!/usr/bin/env bash
# One cache filled by an array of SLURM jobs, for clusters with a shared file system.
#
#   examples/slurm_extract.sh SHARDS SOURCE... -o OUTPUT [options of extract-features]
#   examples/slurm_extract.sh 64 /shared/manifest.csv -o /shared/features.h5 --weights /shared/mobilenet_v2.pth
#
# submits SHARDS jobs, each with its share of the clips, and a last one that takes up what is left when they have ended
# and builds the cache. Run it again after a failure: only what is missing is done. OUTPUT, the videos and this
# environment must be on the shared file system. Partition, account and the like: SBATCH_PARTITION, SBATCH_ACCOUNT.
# EXTRACT is the program, where `extract-features` is not on the PATH.
#
#SBATCH --job-name=extract-features
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@120
# TERM comes two minutes before the time is up: finished clips are committed.

set -euo pipefail
EXTRACT=${EXTRACT:-extract-features}

if [[ -n ${SLURM_JOB_ID:-} && -n ${EXTRACT_SHARDS:-} ]]; then # inside a job that was submitted below
    share=()
    if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then
        share=(--shard "$SLURM_ARRAY_TASK_ID/$EXTRACT_SHARDS")
    fi
    # shellcheck disable=SC2086  # EXTRACT may be several words
    exec $EXTRACT "$@" "${share[@]}" --workers "${SLURM_CPUS_PER_TASK:-1}"
fi

if [[ ! ${1:-} =~ ^[1-9][0-9]*$ || $# -lt 2 ]]; then
    echo "usage: $0 SHARDS SOURCE... -o OUTPUT [options of extract-features]" >&2
    exit 2
fi
export EXTRACT_SHARDS=$1 EXTRACT
shift
array=$(sbatch --parsable --array="1-$EXTRACT_SHARDS" "$0" "$@")
array=${array%%;*} # a federation's answer names the cluster too
# afterany: a share with clips that failed ends with exit code 3
last=$(sbatch --parsable --dependency="afterany:$array" "$0" "$@")
echo "submitted: array $array of $EXTRACT_SHARDS shares, then job ${last%%;*}, which builds the cache"
