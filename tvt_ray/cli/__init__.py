"""The `tvt` command: a thin layer over the verbs. A file per command; heavy imports wait until one runs."""
