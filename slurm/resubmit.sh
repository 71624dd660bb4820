#@TEMPLATE@ Of PBS and Flux, in which a job cannot queue itself again: it submits its script once more.
#@BEGIN REQUEUE@
# A job that was stopped by its time limit, or that has lost a process, submits its script again as long as the run makes
# progress; nivp_dist/batch/requeue.py decides. A job that was cancelled, or has failed, does not.
again=(--job "${script##*/}" --before "$before")
[ "$code" -eq 69 ] && again+=(--lost)
if { [ "$code" -eq 75 ] || [ "$code" -eq 69 ]; } && "${python[@]}" -m nivp_dist.batch.requeue "$run" \
    --cap @REQUEUES@ "${again[@]}" >/dev/null; then
    next=
    for pause in 5 10 20 0; do # a server under load may not answer at once
        next=$(@RESUBMIT@ "$script") && [ -n "$next" ] && break
        next=
        sleep "$pause"
    done
    if [ -n "$next" ]; then
        "${python[@]}" -m nivp_dist.batch.requeue "$run" --queued "$next" --script "$script"
    else
        "${python[@]}" -m nivp_dist.batch.requeue "$run" --job "${script##*/}" --withdraw --by @TITLE@
    fi
fi
#@END REQUEUE@
