"""What a person types and reads: a module a command, the options they share, progress, tables, exit statuses.

Nothing of a conversion is decided here. ``main`` gathers the commands; each imports what it needs when it runs.
"""

EXIT_FAILED = 1
EXIT_QUARANTINED = 3
EXIT_INTERRUPTED = 130
EPILOG = (
    "Exit status: 0 all there and verified; 1 the data failed a check, nothing was published; 2 the call or the "
    "environment is wrong, nothing was touched; 3 published, with damaged records left out and in quarantine "
    "(--on-error quarantine); 130 interrupted; finished shards are kept for the next run."
)
