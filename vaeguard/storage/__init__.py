"""Storage: whole files, finished parts of a job, tables, and what a result was made with."""
