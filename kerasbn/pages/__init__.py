"""Pages to read, offline and without scripts: tables, curves and a network as a drawing, of plain data."""
