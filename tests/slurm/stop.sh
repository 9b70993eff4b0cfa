#!/usr/bin/env bash
# Stops what start.sh has started in FOLDER.
set -uo pipefail
SLURM_CONF=$1/slurm.conf scancel --full --signal=KILL --user="$(id -un)"
for pid in "$1"/slurmd.pid "$1"/slurmctld.pid "$1"/munge/pid; do
    [[ -f $pid ]] && kill "$(cat "$pid")"
done
exit 0
