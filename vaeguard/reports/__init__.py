"""Reports: one `report.json`, one `report.html` that needs nothing else, and the same in a terminal.

Each kind of report is a module and a template of its name (see `kinds`); `page` makes the HTML from the JSON.
"""
