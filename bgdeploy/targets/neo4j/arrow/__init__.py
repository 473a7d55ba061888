"""Loading over Arrow: GDS builds the database from streams of Arrow batches."""
