#!/usr/bin/env bash
# Everything in the paper: its figure and its six tables, one preset after another, and then the report.
#
#   sweeps/all.sh                                        # the paper's models, on a GPU
#   sweeps/all.sh model=tiny results_dir=results/tiny    # the bundled default, on anything
#
# Arguments go to every preset. A failed cell does not stop the presets that follow; the exit status is
# then 1, and the same command does what is missing. Relative paths are relative to the current folder.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
python=${PYTHON:-python}

results=results
for argument in "$@"; do
    case $argument in results_dir=*) results=${argument#results_dir=} ;; esac
done

status=0
for preset in figure1 table1 table2 table3 table4 table5 table6; do
    echo "== experiment=$preset $*" >&2
    code=0
    "$python" -m nsvd_exp experiment="$preset" report=false "$@" || code=$?
    # 1 is a failed cell. What is above (a wrong command line, an interrupt) would happen again.
    if ((code > 1)); then exit "$code"; fi
    if ((code == 1)); then status=1; fi
done
"$python" -m nsvd_exp.report "$results" || status=1
exit "$status"
