"""What a recipe takes on the card: by formulas (`plan`), and as the command shows it (`check`)."""
