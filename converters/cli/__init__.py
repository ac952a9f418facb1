"""What a person types and reads: commands, options, progress, tables, exit statuses. No logic of a conversion is here."""
