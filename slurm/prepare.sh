#@TEMPLATE@ Of every job script: what precedes the run.
module load @MODULE@
export @EXPORT@
@SETUP@
python=(@PYTHON@)
# The processes of the run recognise each other by this text, which nobody else can see.
NIVP_SECRET=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export NIVP_SECRET
# A run that dies before it writes a summary leaves that of an earlier job, which must not be taken for its own.
before=$(cat "$run/summary.json" 2>/dev/null | sha256sum)
#@BEGIN CHAIN@
# An earlier job of the chain may have finished the run (3), or the run cannot go on.
"${python[@]}" -m nivp_dist.batch.chain "$run" --chain @SUBMISSION@ --job "$job"
case $? in 0) ;; 3) exit 0 ;; *) exit 1 ;; esac
#@END CHAIN@
