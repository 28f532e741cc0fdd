"""Results for people: one HTML page, Markdown tables, figures."""
