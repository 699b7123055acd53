"""Plain records in; tables, plots and one HTML file out. Whatever comes from data or a model is shown as text."""
