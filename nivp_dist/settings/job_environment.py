"""What a job of a batch system tells its run by environment variables."""

# The id of the job: of Slurm, PBS, LSF. That of Flux is the id of what `flux run` has started inside of a job.
JOB_IDS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID")
# Seconds between the notice of the time limit and the limit. `nivp submit` sets it, and every scheduler hands it on.
NOTICE_SECONDS = "NIVP_NOTICE_SECONDS"
# The time of the notice in seconds since 1970. Job scripts set it where no signal reaches the processes of the run.
NOTICE_AT = "NIVP_NOTICE_AT"
# A notice should be so many times the longest step and save that were seen: the next may take longer on a busy file
# system.
NOTICE_FACTOR = 3
