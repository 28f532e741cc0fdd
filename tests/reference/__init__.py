"""A second decoder of `.press`, written from export/FORMAT.md alone: slow, obvious, and the judge of the fast one."""
