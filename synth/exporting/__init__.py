"""What an export is made of: the rows of each format, the files, the dataset card, the push to the hub."""
