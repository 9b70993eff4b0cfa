"""How a report looks: text, tables, figures, page and terminal."""
