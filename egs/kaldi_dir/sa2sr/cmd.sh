# How jobs are run: run.sh runs them on this machine; a cluster's own run.pl, queue.pl or slurm.pl may stand here.
cmd=run.sh
