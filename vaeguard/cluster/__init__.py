"""The pieces of a job as tasks of a Ray cluster; Ray is imported when a job begins."""
