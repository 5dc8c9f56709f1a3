"""What a file is, what is wrong with it, which command takes it."""
