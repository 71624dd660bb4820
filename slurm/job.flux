#!/bin/bash
#@TEMPLATE@ The template of job scripts for Flux; job.sbatch says how it is read.
# A Flux job of nivp_dist, written by `nivp submit`. You may edit this script and hand it to `flux batch` again: it
# continues the run in the directory below.
#flux: --job-name=@NAME@
#flux: --nodes=@NODES@
#flux: --exclusive@WHOLE@
#flux: --nslots=@SLOTS@
#flux: --cores-per-slot=@CPUS@
#flux: --gpus-per-slot=@GPUS@
#flux: --time-limit=@LIMIT@
#flux: --queue=@PARTITION@
#flux: --setattr=bank=@ACCOUNT@
#flux: --requires=@CONSTRAINT@
#flux: @SUBMIT@
# Flux signals this script and the tasks of `flux run` so many seconds before the time limit. The signal is not USR1,
# because NCCL may use that.
#flux: --signal=USR2@@NOTICE@
#flux: --output=@LOGS@/flux-{{id}}.out

run=@RUN@
script=@SCRIPT@
job=$(flux getattr jobid)

#@INCLUDE prepare.sh@

#@INCLUDE waiting.sh@
# Process 0 ends last, and its exit code counts: 0 finished, 75 stopped with a checkpoint, 69 a process was lost, 1 failed,
# 2 bad input.
# exit-timeout: the others end before process 0 draws the pictures, and Flux would end the job 30 seconds later.
# --patience: a file system may hold the lock of a lost node for some minutes.
@LAUNCH@ \
    @OPTION@ \
#@INCLUDE launched.sh@

#@INCLUDE resubmit.sh@
exit "$code"
