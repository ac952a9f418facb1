"""What a person types and reads: commands, options, progress, tables, exit statuses. No conversion logic is here."""
