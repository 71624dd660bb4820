"""Examples: programs to read, to run and to change. `nivp guide examples` says what each shows."""
