"""Jobs of batch systems: `nivp submit`, the site file, job scripts, and the rule that queues a job again."""
