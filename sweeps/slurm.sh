#!/usr/bin/env bash
# The paper's tables on a Slurm cluster: one array task for each preset, with one GPU, and one results_dir
# that all tasks share.
#
#   sbatch sweeps/slurm.sh results_dir=/scratch/nsvd                       # from the repository's root
#   sbatch --array=4 --mem=128G sweeps/slurm.sh results_dir=/scratch/nsvd  # one of them
#   python -m nsvd_exp.report /scratch/nsvd                                # when they are done
#
# Tasks share cells and calibration statistics: the one that comes second waits and finds them done.
# Submitting again does what is missing. Memory and hours are in the headers of the presets; --mem is for the
# statistics (LLaMA-30B in Table 6: 128G). PYTHON names the interpreter, if it is not the environment's.
#SBATCH --job-name=nsvd_exp
#SBATCH --array=0-5
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=2-00:00:00
#SBATCH --output=%x_%A_%a.log
set -euo pipefail

# Table 2 is made of Figure 1's records.
presets=(table1 table3 table4 table5 table6 figure1)
exec "${PYTHON:-python}" -m nsvd_exp \
    experiment="${presets[$SLURM_ARRAY_TASK_ID]}" report=false "$@"
