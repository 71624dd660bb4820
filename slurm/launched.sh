#@TEMPLATE@ Of every job script: the command that the launcher starts, and the wait for its end.
    "${python[@]}" -m nivp_dist.cli resume "$run" \
    @KEYS@ \
    --patience 300 &
tasks=$!
# @LAUNCHER@ may wait for ever for a node that was lost, after the run has ended: then this program ends @LAUNCHER@.
"${python[@]}" -m nivp_dist.batch.watch "$run" --pid "$tasks" --grace "${NIVP_SRUN_GRACE_SECONDS:-300}"@NAMED@ &
watch=$!
disown "$watch" # without this bash may report its end by the kill below
signalled=yes
while [ -n "$signalled" ]; do
    signalled=
    wait "$tasks"
    code=$?
done
kill -KILL "$watch" 2>/dev/null
# 137: process 0, or @LAUNCHER@ itself, was killed. The run directory says what the run had come to.
[ "$code" -eq 137 ] && code=$("${python[@]}" -m nivp_dist.batch.requeue "$run" --outcome --before "$before" || echo 137)
