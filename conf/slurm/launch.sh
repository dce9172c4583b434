#!/bin/bash
# One `accelerate launch` on each training node of a Slurm job, all of them one run: what `engine.launcher`
# names in profile cluster. conf/slurm/prorl.sbatch says which nodes.
#
#     bash conf/slurm/launch.sh ACCELERATE_CONFIG -m MODULE ARGUMENTS...
set -u
config=$1
shift
nodes=${PRORL_NODES:?the training nodes, with commas; conf/slurm/prorl.sbatch sets it}
IFS=, read -ra each <<< "$nodes"
machines=${#each[@]} gpus=${PRORL_GPUS:-${SLURM_GPUS_ON_NODE:-8}}
exec srun --nodes="$machines" --ntasks="$machines" --ntasks-per-node=1 --nodelist="$nodes" --overlap \
    --kill-on-bad-exit=1 bash -c 'exec accelerate launch --machine_rank "$SLURM_PROCID" "$@"' launch \
    --config_file "$config" --num_machines "$machines" --num_processes "$(( machines * gpus ))" \
    --main_process_ip "${each[0]}" --main_process_port "${PRORL_MAIN_PORT:-29500}" "$@"
