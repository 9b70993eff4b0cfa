#!/usr/bin/env bash
# Everything in the paper: its figure and its six tables, one preset after another, and then the report.
#
#   sweeps/all.sh                                        # the paper's models, on a GPU
#   sweeps/all.sh model=tiny results_dir=results/tiny    # the bundled default, on anything
#
# Arguments go to every preset. A failed cell does not stop the presets that follow; the exit status is
# then 1, and the same command does what is missing. Relative paths are relative to the current folder.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/run.sh"

results=results
for argument in "$@"; do
    case $argument in results_dir=*) results=${argument#results_dir=} ;; esac
done

for preset in figure1 table1 table2 table3 table4 table5 table6; do
    run experiment="$preset" report=false "$@"
done
"$python" -m nsvd_exp.report "$results" || status=1
exit "$status"
