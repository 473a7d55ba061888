"""Loading over Bolt: works on every server, and goes on after any crash at the next batch."""
