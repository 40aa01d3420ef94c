"""What a recipe takes on the card: by formulas (`plan`), by a trace of its step (`trace`), as the command shows it (`check`)."""
