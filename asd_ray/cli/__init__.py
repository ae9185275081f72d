"""The command line: one module per group of commands; they parse, call one function, and print."""
