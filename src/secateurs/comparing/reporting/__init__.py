"""What came out, as points, findings, tables, charts and a page."""
