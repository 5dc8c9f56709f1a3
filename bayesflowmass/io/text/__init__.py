"""Tables in plain text: what a file looks like, its rows, each of them counted, its values."""
