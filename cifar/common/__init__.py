"""The ground that all layers stand on: project paths and names, errors, files, locks, processes, addresses."""
