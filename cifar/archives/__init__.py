"""What a .mar holds: layout, building, checks, reference outputs, signatures."""
