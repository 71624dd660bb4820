#!/bin/bash
# A Flux job of nivp_dist, written by `nivp submit`. You may edit this script and hand it to `flux batch` again: it
# continues the run in the directory below.
#flux: --job-name=heat-001
#flux: --nodes=4
#flux: --nslots=16
#flux: --cores-per-slot=8
#flux: --gpus-per-slot=2
#flux: --time-limit=217800s
#flux: --queue=gpu
#flux: --setattr=bank=physics
#flux: --requires='a|b'
#flux: --urgency=20
# Flux signals this script and the tasks of `flux run` so many seconds before the time limit. The signal is not USR1,
# because NCCL may use that.
#flux: --signal=USR2@300s
#flux: --output=/scratch/runs/heat-001/logs/flux-{{id}}.out

run=/scratch/runs/heat-001
script=/scratch/runs/heat-001/job-001.flux
job=$(flux getattr jobid)

module load cuda/12.8
module load apptainer
export NOTE='it'"'"'s ours'
ulimit -n 65536
python=(apptainer exec --nv $HOME/nivp.sif python)
# The processes of the run recognise each other by this text, which nobody else can see.
NIVP_SECRET=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export NIVP_SECRET
# A run that dies before it writes a summary leaves that of an earlier job, which must not be taken for its own.
before=$(cat "$run/summary.json" 2>/dev/null | sha256sum)

# Bash handles a signal only between two commands. So the tasks run in the background, and this shell waits for them,
# and waits again if a signal has interrupted it. It has to outlive them, to decide on what follows.
trap 'signalled=yes' TERM USR2
# Process 0 ends last, and its exit code counts: 0 finished, 75 stopped with a checkpoint, 69 a process was lost, 1 failed,
# 2 bad input.
# exit-timeout: the others end before process 0 draws the pictures, and Flux would end the job 30 seconds later.
# --patience: a file system may hold the lock of a lost node for some minutes.
flux run -o exit-timeout=none --nodes=4 --ntasks=16 --cores-per-task=8 --gpus-per-task=2 \
    -ocpu-affinity=off \
    "${python[@]}" -m nivp_dist.cli resume "$run" \
    --integrator.t_end 2 \
    --patience 300 &
tasks=$!
# flux run may wait for ever for a node that was lost, after the run has ended: then this program ends flux run.
"${python[@]}" -m nivp_dist.batch.watch "$run" --pid "$tasks" --grace "${NIVP_SRUN_GRACE_SECONDS:-300}" --launcher 'flux run' &
watch=$!
disown "$watch" # without this bash may report its end by the kill below
signalled=yes
while [ -n "$signalled" ]; do
    signalled=
    wait "$tasks"
    code=$?
done
kill -KILL "$watch" 2>/dev/null
# 137: process 0, or flux run itself, was killed. The run directory says what the run had come to.
[ "$code" -eq 137 ] && code=$("${python[@]}" -m nivp_dist.batch.requeue "$run" --outcome --before "$before" || echo 137)

# A job that was stopped by its time limit, or that has lost a process, submits its script again as long as the run makes
# progress; nivp_dist/batch/requeue.py decides. A job that was cancelled, or has failed, does not.
again=(--job "${script##*/}" --before "$before")
[ "$code" -eq 69 ] && again+=(--lost)
if { [ "$code" -eq 75 ] || [ "$code" -eq 69 ]; } && "${python[@]}" -m nivp_dist.batch.requeue "$run" \
    --cap 50 "${again[@]}" >/dev/null; then
    next=
    for pause in 5 10 20 0; do # a server under load may not answer at once
        next=$(flux --parent batch "$script") && [ -n "$next" ] && break
        next=
        sleep "$pause"
    done
    if [ -n "$next" ]; then
        "${python[@]}" -m nivp_dist.batch.requeue "$run" --queued "$next" --script "$script"
    else
        "${python[@]}" -m nivp_dist.batch.requeue "$run" --job "${script##*/}" --withdraw --by Flux
    fi
fi
exit "$code"
