#!/usr/bin/env bash
# Fill one cache with an array of SLURM jobs, on a cluster with a shared file system.
#
#   examples/slurm_extract.sh SHARDS SOURCE... -o OUTPUT [options of extract-features]
#   examples/slurm_extract.sh 64 /shared/manifest.csv -o /shared/features.h5 --weights /shared/mobilenet_v2.pth
#
# This submits SHARDS jobs with one shard of the clips each. A last job starts when they have ended, extracts the clips
# that are still missing and builds the cache. Run it again after a failure: only missing clips are extracted. OUTPUT, the
# videos and this environment must be on the shared file system. Set the partition and account with SBATCH_PARTITION and
# SBATCH_ACCOUNT. If `extract-features` is not on the PATH, set EXTRACT to the program.
#
#SBATCH --job-name=extract-features
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@120
# SLURM sends TERM two minutes before the time limit, so that finished clips are committed.

set -euo pipefail
EXTRACT=${EXTRACT:-extract-features}

if [[ -n ${SLURM_JOB_ID:-} && -n ${EXTRACT_SHARDS:-} ]]; then # this is a job that was submitted below
    shard=()
    if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then
        shard=(--shard "$SLURM_ARRAY_TASK_ID/$EXTRACT_SHARDS")
    fi
    # shellcheck disable=SC2086  # EXTRACT may be several words
    exec $EXTRACT "$@" "${shard[@]}" --workers "${SLURM_CPUS_PER_TASK:-1}"
fi

if [[ ! ${1:-} =~ ^[1-9][0-9]*$ || $# -lt 2 ]]; then
    echo "usage: $0 SHARDS SOURCE... -o OUTPUT [options of extract-features]" >&2
    exit 2
fi
export EXTRACT_SHARDS=$1 EXTRACT
shift
array=$(sbatch --parsable --array="1-$EXTRACT_SHARDS" "$0" "$@")
array=${array%%;*} # in a federation, sbatch also prints the cluster
# afterany: a shard with failed clips ends with exit code 3
last=$(sbatch --parsable --dependency="afterany:$array" "$0" "$@")
echo "submitted: array $array of $EXTRACT_SHARDS shards, then job ${last%%;*}, which builds the cache"
