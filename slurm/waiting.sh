#@TEMPLATE@ Of the schedulers other than Slurm: how signals are handled.
# Bash handles a signal only between two commands. So the tasks run in the background, and this shell waits for them,
# and waits again if a signal has interrupted it. It has to outlive them, to decide on what follows.
trap 'signalled=yes' TERM USR2
