#!/usr/bin/env bash
# Starts a Slurm of one node on loopback, all of it in FOLDER, and waits until it takes jobs:
#
#     tests/slurm/start.sh FOLDER && export SLURM_CONF=FOLDER/slurm.conf
#     tests/slurm/stop.sh FOLDER
#
# Needs root and Debian's slurm-wlm and munge. It keeps no accounts, as a small cluster may.
set -euo pipefail
folder=$(realpath -m "$1")
mkdir -p "$folder"/{state,spool,munge}
chmod 755 "$folder" "$folder/munge"

head -c 128 /dev/urandom > "$folder/munge/key"
chmod 600 "$folder/munge/key"
munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" \
    --pid-file="$folder/munge/pid" --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
host=$(hostname -s)
cat > "$folder/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$folder/munge/socket
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=1
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0
MpiDefault=none
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF

export SLURM_CONF="$folder/slurm.conf"
slurmctld -f "$SLURM_CONF"
slurmd -f "$SLURM_CONF"
for _ in $(seq 100); do
    [[ $(sinfo --noheader --format=%T) == idle ]] && exit 0
    sleep 0.1
done
echo "the node is not idle: $(sinfo --noheader 2>&1)" >&2
tail -n 20 "$folder"/*.log >&2
exit 1
