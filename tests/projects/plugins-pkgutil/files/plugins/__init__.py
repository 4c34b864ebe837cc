"""Drop a module with check(text) in here."""
