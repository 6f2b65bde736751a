"""Reports: one `report.json`, one `report.html` that needs nothing else, and the same in a terminal.

Each kind of report has a module that makes its JSON and a template of its name; `page` makes the HTML from the JSON.
"""
