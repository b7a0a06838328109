"""The `tvt` command: a thin layer over the stages. A file per command; heavy imports wait until one runs."""
