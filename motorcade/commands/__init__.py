"""One module a group of commands; each imports its room only when a command of it runs."""
