#!/usr/bin/env bash
# Tables 1, 3 and 4 on a small model of your own, and their report: the comparison of methods without a GPU.
#
#   sweeps/small_model.sh MODEL_FOLDER DATA_FOLDER [RESULTS_DIR [NAME=VALUE ...]]
#
# DATA_FOLDER holds wikitext2/train and <dataset>/test for each of the six datasets below. At most 64 windows
# of 512 tokens are evaluated of each dataset. Such a model loses little at the paper's ratios, hence ratios
# up to 0.9. RESULTS_DIR is results/<model> if it is not given. Settings that are typed replace those below.
set -euo pipefail

if (($# < 2)); then
    echo "usage: $0 MODEL_FOLDER DATA_FOLDER [RESULTS_DIR [NAME=VALUE ...]]" >&2
    exit 2
fi
source "$(dirname "${BASH_SOURCE[0]}")/run.sh"

model=$1 data=$2 results=${3:-results/$(basename "$1")}
shift $(($# < 3 ? $# : 3))
settings=(
    model=hf "model.name=$model" "data_dir=$data" "results_dir=$results"
    "dataset=[wikitext2,c4,snips,alpaca_eval,cmrc_cn,alpaca_eval_jp]"
    calibration.length=512 evaluation.length=512 evaluation.max_windows=64 report=false
)

run experiment=table1 ratio=0.3,0.5,0.7,0.8,0.9 "$@"
run experiment=table3 ratio=0.8 "$@"
run experiment=table4 ratio=0.8 "$@"
"$python" -m nsvd_exp.report "$results" --tables 1,3,4 || status=1
exit "$status"
