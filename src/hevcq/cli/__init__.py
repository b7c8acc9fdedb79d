"""One thin module a command: parse, wire, call, render."""
