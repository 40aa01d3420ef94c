"""One reward a file: file = function = the name in a recipe = the name of its metric. Drop a file in and name it."""
