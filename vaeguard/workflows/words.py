"""Results as JSON, as lines on a terminal, and in words."""

from vaeguard.errors import as_objects
from vaeguard.reports.report_file import finite, without_pictures
from vaeguard.reports.terminal import show_report
from vaeguard.restoration.reasons import left_clause
from vaeguard.storage.tables import rows_of
from vaeguard.wording import counted

__all__ = ["as_objects", "counted", "finite", "left_clause", "rows_of", "show_report", "without_pictures"]
